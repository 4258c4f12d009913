"""What several propensities and imputations share: the weights that balance them all."""

import torch
from torch import Tensor, nn

from upo.core.distributed import batch_mean, gather_rows, sum_across_ranks
from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.multiple_robust import (
    balancing_coefficients,
    balancing_weights,
    positive_weights,
)
from upo.models.estimator import Estimator, Weighting
from upo.pairs import Pairs, sampled_pairs, training_rows

SAMPLE = 2**17  # pairs of D, all of a smaller one, for its mean


class Balance(nn.Module):
    """The weights of observed pairs that balance several propensities and imputations.

    Columns u are 1, the inverse propensities and the imputed errors. ``solve`` finds the weights on
    all training rows, which keep them until it is called again: imputed errors move meanwhile, and
    weights that followed them would drift.

    Args:
        sizes: Seeds.
        propensities: One weighting for each of the J propensities; each gives a column 1 / p.
        imputations: Roles of the K imputations; each gives a column of imputed errors.
        ridge: In units of each column's mean square, at least 0; 0 balances exactly.
        nonnegative: Where a weight by least squares is negative, and so rewards a large error, take
            the positive weights that balance (``upo.functional.multiple_robust``).
        purpose: Unused.

    Raises:
        InputError: If the ridge is negative or there is no column.
    """

    replayable = True

    omega: Tensor
    miss: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        propensities: list[Weighting],
        imputations: list[str],
        ridge: float = 0.0,
        nonnegative: bool = True,
        purpose: str = "balance",
    ) -> None:
        super().__init__()
        columns = 1 + len(propensities) + len(imputations)
        if columns == 1:
            raise InputError("A balance needs at least one propensity or imputation.")
        if not 0 <= ridge < float("inf"):
            raise InputError(f"balance ridge must be at least 0, got {ridge}; try 0 (exact).")
        self.propensities, self.imputations = list(propensities), list(imputations)
        weighed = (getattr(each, "network", None) for each in propensities)
        self.reads = (*filter(None, weighed), *imputations)
        self.ridge, self.nonnegative = ridge, nonnegative
        # of each row of the log; found anew at each epoch, so no checkpoint holds them
        self.register_buffer("omega", torch.zeros(len(sizes.seeds), 0), persistent=False)
        self.register_buffer("miss", torch.zeros(len(sizes.seeds), dtype=torch.float64))

    @torch.no_grad()
    def columns(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, C, B] float64
        """U of the pairs; every network is frozen."""
        f_logit = estimator.logit("prediction", pairs)
        inverse = [1.0 / weighting.p_hat(estimator, pairs) for weighting in self.propensities]
        imputed = [
            estimator.form.imputed(f_logit, estimator.logit(role, pairs))
            for role in self.imputations
        ]
        return torch.stack([torch.ones_like(f_logit), *inverse, *imputed], dim=-2).double()

    @torch.no_grad()
    def solve(self, estimator: Estimator) -> None:
        """Balance all training rows against D (a sample of a large one)."""
        space = estimator.space
        rows = list(training_rows(space))
        u_o = torch.cat([self.columns(estimator, part) for part in rows], dim=-1)
        mean = batch_mean(self.columns(estimator, sampled_pairs(space, "balance", SAMPLE)))
        omega = balancing_weights(u_o, balancing_coefficients(u_o, mean, self.ridge))
        if self.nonnegative:
            negative = (gather_rows(omega) < 0).any(-1, keepdim=True)
            omega = torch.where(negative, positive_weights(u_o, mean, self.ridge), omega)
        gap = (batch_mean(omega.unsqueeze(-2) * u_o) - mean).abs() / mean.abs().clamp(min=1e-12)
        self.miss.copy_(gap.amax(-1))
        index = torch.cat([space.find(x.users, x.items)[0] for x in rows], dim=-1)
        every = omega.new_zeros(space.replicas, space.n_observed).scatter(1, index, omega)
        self.omega = sum_across_ranks(every).float()

    @torch.no_grad()
    def weight(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Weights of training rows."""
        return self.omega.gather(1, estimator.space.find(pairs.users, pairs.items)[0])
