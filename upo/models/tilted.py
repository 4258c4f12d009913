"""A propensity tilted until SNIPS of the imputed errors is their mean over D."""

import torch
from torch import Tensor

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs


class TiltedPropensity(Derived):
    r"""Logits of a propensity plus :math:`s^\top b`; :math:`b=(1,\hat e)` in units of its spread.

    The coefficients are 0 until ``upo.learners.tilting.Tilting`` sets them.

    Source: after Li et al., "StableDR", ICLR 2023. Differs: see ``upo.functional.tilting.tilt``.

    Args:
        sizes: Seeds.
        source: Role of the propensity.
        limit: Imputed errors farther from their mean count as this many standard deviations; above
            0. A few pairs with large ones would carry all the weight otherwise.
        purpose: Name of the network.

    Raises:
        InputError: If the limit is not positive.
    """

    replayable = True

    coefficients: Tensor
    center: Tensor
    scale: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        source: str = "propensity",
        limit: float = 2.0,
        purpose: str = "tilted",
    ) -> None:
        super().__init__((source, "prediction", "imputation"))
        if not limit > 0:
            raise InputError(f"limit of the tilted propensity must be above 0, got {limit}; try 2.")
        self.limit = limit
        replicas = len(sizes.seeds)
        self.register_buffer("coefficients", torch.zeros(replicas, 2))
        self.register_buffer("center", torch.zeros(replicas, 1))
        self.register_buffer("scale", torch.ones(replicas, 1))

    def balanced(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B, 2]
        """What is balanced: 1, and the imputed error in standard deviations from its mean."""
        e_hat = (estimator.imputed(pairs).detach() - self.center) / self.scale
        return torch.stack([torch.ones_like(e_hat), e_hat.clamp(-self.limit, self.limit)], dim=-1)

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logits of the tilted propensity."""
        shift = (self.balanced(estimator, pairs) * self.coefficients[:, None]).sum(-1)
        return estimator.logit(self.sources[0], pairs) + shift
