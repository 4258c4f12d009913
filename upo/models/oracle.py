"""The true propensities of a simulated world in the place of learned ones."""

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs


class OraclePropensity(Derived):
    """Logits of the true propensities; it has no parameters and is never trained.

    Args:
        sizes: Not needed; every network is given them.
        purpose: Name of the network.

    Raises:
        InputError: When asked, if the dataset does not know its propensities.
    """

    def __init__(self, sizes: Sizes, *, purpose: str = "propensity") -> None:
        nn.Module.__init__(self)  # unlike other derived roles it reads the space, and no role
        self.sources = ()

    @torch.no_grad()
    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logits ``[R, B]`` float32."""
        truth = estimator.space.truth
        if truth is None:
            raise InputError(
                "propensity=oracle needs a dataset whose true propensities are known, such as "
                "ml100k; choose one, or another propensity."
            )
        return torch.logit(truth.propensity(pairs.users, pairs.items)).float()
