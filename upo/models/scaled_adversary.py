"""An adversary whose weights grow as those of BMSE do: balance of rare pairs is in its reach."""

from typing import Any

import torch
from torch import Tensor

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.propensity import clip_propensity
from upo.models.adversary import Adversary, unit_power
from upo.models.estimator import Estimator
from upo.pairs import Pairs


class ScaledAdversary(Adversary):
    r"""Bounded weights times :math:`1/(\hat p(1-\hat p))`, in units of its root mean square.

    By Lemma 2 the loss with :math:`w=\phi/(\hat p(1-\hat p))` bounds the imbalance of
    :math:`\phi`. Weights bounded by a constant cannot follow that where propensities are small;
    here they can, and stay bounded pair by pair, so that one pair cannot rule a bin.

    Source: a variant of UPO (AAAI 2026) of this project.

    Args:
        sizes: Seeds; the tables are the propensity network's.
        dim: Embedding size of the propensity network.
        p_min: Propensities are read inside [p_min, 1 - 1e-6] in the scale, in (0, 1).
        **settings: See ``Adversary``.

    Raises:
        InputError: If ``p_min`` is out of range.
    """

    replayable = True

    def __init__(self, sizes: Sizes, *, dim: int, p_min: float = 0.01, **settings: Any) -> None:
        super().__init__(sizes, dim=dim, **settings)
        if not 0 < p_min < 1:
            raise InputError(f"adversary p_min must lie in (0, 1), got {p_min}; try 0.01.")
        self.p_min = p_min

    @torch.no_grad()
    def see(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B, 2 * dim + 1]
        """Features of the pairs, and the scale in the last column."""
        p_hat = clip_propensity(estimator.propensity(pairs), self.p_min)
        scale = unit_power(1.0 / (p_hat * (1.0 - p_hat)))
        return torch.cat([super().see(estimator, pairs), scale.unsqueeze(-1)], dim=-1)

    def forward(self, seen: Tensor) -> Tensor:  # [R, B, 2 * dim + 1] -> [R, B]
        """Weights of the pairs."""
        return super().forward(seen[..., :-1]) * seen[..., -1]
