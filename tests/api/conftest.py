"""One fit of two seeds that the tests of this folder ask, and all that its networks say."""

import pytest
import torch
from api_world import TEST, short


@pytest.fixture(scope="session")
def fitted():
    return short(test=TEST, seeds=[3, 8])


@pytest.fixture(scope="session")
def table(fitted):
    """What the networks say of all pairs, ``[R, users, items]``: prediction and propensity."""
    space = fitted.estimator.space
    index = torch.arange(space.n_pairs).expand(space.replicas, -1)
    pairs = space.pairs(index, space.n_pairs)
    shape = (space.replicas, space.n_users, space.n_items)
    with torch.no_grad():
        f = torch.sigmoid(fitted.estimator.logit("prediction", pairs))
        p = fitted.estimator.propensity(pairs)
    return {"predict": f.double().view(shape).numpy(), "propensity": p.double().view(shape).numpy()}
