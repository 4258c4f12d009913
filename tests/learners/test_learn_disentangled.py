"""DT-IPS, DT-DR: the prediction's embeddings are part of the propensity's."""

import pytest
import torch
from balancing_runs import adam
from small_estimators import built, roughened

from upo.errors import InputError
from upo.functional.disentangled import orthogonality_penalty
from upo.functional.pointwise import cross_entropy
from upo.learners.disentangled import ObservationTerm, Orthogonal
from upo.learners.propensity import PropensityLearner
from upo.pairs import Batch


def batch_of(name="dt_dr", *overrides):
    _, estimator, sampler = built(name, *overrides)
    roughened(estimator, scale=0.5)
    return estimator, sampler.chunk(0, 1)[0]


def test_without_auxiliary_embeddings_the_propensity_is_the_prediction():
    estimator, batch = batch_of()
    for p in estimator.networks["auxiliary"].parameters():
        p.data.zero_()
    estimator.stepped("auxiliary")
    torch.testing.assert_close(
        estimator.propensity(batch.pairs), estimator.probability("prediction", batch.pairs)
    )


def test_logits_add_up_to_the_product_of_joined_embeddings():
    estimator, batch = batch_of("dt_dr", "estimator.networks.auxiliary.biases=false")
    pairs, networks = batch.pairs, estimator.networks
    sides = [
        torch.cat(
            [getattr(networks[role], side)(index) for role in ("prediction", "auxiliary")], -1
        )
        for side, index in (("user", pairs.users), ("item", pairs.items))
    ]
    found = estimator.logit("propensity", pairs)
    # float32 sums of 136 products
    torch.testing.assert_close(found, (sides[0] * sides[1]).sum(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_observed_teaches_the_prediction_only_if_it_shall(shared):
    word = f"estimator.networks.propensity.share_gradient={shared}"
    estimator, batch = batch_of("dt_dr", word)
    value = ObservationTerm(loss=cross_entropy)(estimator, batch)
    theirs = list(estimator.networks["prediction"].parameters())
    grads = torch.autograd.grad(value.sum(), theirs, allow_unused=True)
    assert all((g is not None) == shared for g in grads)


def test_the_penalty_is_a_mean_over_the_batch_and_0_of_orthogonal_embeddings():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, 3, generator=g), torch.randn(2, 40, 2, generator=g)
    value = orthogonality_penalty(a, b)
    expected = torch.einsum("rbk,rbl->rkl", a, b).div(40).square().mean((1, 2))
    torch.testing.assert_close(value, expected)
    twice = orthogonality_penalty(torch.cat([a, a], 1), torch.cat([b, b], 1))
    torch.testing.assert_close(value, twice)
    basis = torch.linalg.qr(torch.randn(2, 40, 5, generator=g))[0]
    apart = orthogonality_penalty(basis[..., :3], basis[..., 3:])
    torch.testing.assert_close(apart, torch.zeros(2), rtol=0, atol=1e-12)


def test_a_strong_penalty_makes_auxiliary_embeddings_orthogonal():
    estimator, batch = batch_of()
    term = Orthogonal(beta=1.0)
    before = term(estimator, batch.pairs)
    learner = PropensityLearner(
        estimator,
        optimizer=adam(0.03),
        loss=cross_entropy,
        network="auxiliary",
        output="propensity",
        penalties={"orthogonal": Orthogonal(beta=1e3)},
    )
    for _ in range(150):
        learner.update(Batch(None, batch.pairs))
    assert (term(estimator, batch.pairs) < 0.05 * before).all()


def test_a_network_without_embeddings_is_named():
    estimator, batch = batch_of()
    with pytest.raises(InputError, match="table of user embeddings"):
        Orthogonal(networks=("prediction", "propensity"))(estimator, batch)
