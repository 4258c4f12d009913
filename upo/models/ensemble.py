"""What several propensities and imputations share: the moments that their weights balance."""

import torch
from torch import Tensor, nn

from upo.core.distributed import batch_mean
from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.multiple_robust import balancing_coefficients, balancing_weights, gram_matrix
from upo.models.estimator import Estimator, Weighting
from upo.pairs import Batch, Pairs


class Balance(nn.Module):
    """Running moments of u over O and D, and the weights of observed pairs that follow from them.

    A single small batch gives noisy and often negative weights; a moving average steadies them.

    Args:
        sizes: Seeds.
        propensities: One weighting for each of the J propensities; each gives a column 1 / p.
        imputations: Roles of the K imputations; each gives a column of imputed errors.
        decay: Share of the average kept at each step, in [0, 1); 0 solves on the batch alone.
        ridge: Relative to each column's mean square, at least 0.
        nonnegative: Cut negative weights off at 0. The weights then balance no longer exactly, but
            a negative weight rewards a large error.
        purpose: Unused.

    Raises:
        InputError: If a number is out of range or there is no column.
    """

    replayable = True

    gram: Tensor
    mean: Tensor
    mass: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        propensities: list[Weighting],
        imputations: list[str],
        decay: float = 0.95,
        ridge: float = 1e-3,
        nonnegative: bool = False,
        purpose: str = "balance",
    ) -> None:
        super().__init__()
        columns = len(propensities) + len(imputations)
        if not columns:
            raise InputError("A balance needs at least one propensity or imputation.")
        if not 0 <= decay < 1:
            raise InputError(f"balance decay must lie in [0, 1), got {decay}; try 0.95.")
        if not ridge >= 0:
            raise InputError(f"balance ridge must be at least 0, got {ridge}; try 0.001.")
        self.propensities, self.imputations = list(propensities), list(imputations)
        self.decay, self.ridge, self.nonnegative = decay, ridge, nonnegative
        replicas = len(sizes.seeds)
        self.register_buffer("gram", torch.zeros(replicas, columns, columns, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(replicas, columns, dtype=torch.float64))
        self.register_buffer("mass", torch.zeros(replicas, 1, dtype=torch.float64))

    @torch.no_grad()
    def columns(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, C, B] float64
        """U of the pairs; every network is frozen."""
        f_logit = estimator.logit("prediction", pairs)
        inverse = [1.0 / weighting.p_hat(estimator, pairs) for weighting in self.propensities]
        imputed = [
            estimator.form.imputed(f_logit, estimator.logit(role, pairs))
            for role in self.imputations
        ]
        return torch.stack([*inverse, *imputed], dim=-2).double()

    @torch.no_grad()
    def observe(self, estimator: Estimator, batch: Batch) -> None:
        """Take a batch into the moving averages."""
        for state, value in (
            (self.gram, gram_matrix(self.columns(estimator, batch.rows))),
            (self.mean, batch_mean(self.columns(estimator, batch.pairs))),
            (self.mass, torch.ones_like(self.mass)),
        ):
            state.mul_(self.decay).add_(value, alpha=1 - self.decay)

    @torch.no_grad()
    def weight(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Weights of observed pairs."""
        coefficients = balancing_coefficients(
            self.gram / self.mass[..., None], self.mean / self.mass, self.ridge
        )
        omega = balancing_weights(self.columns(estimator, pairs), coefficients).float()
        return omega.clamp(min=0.0) if self.nonnegative else omega
