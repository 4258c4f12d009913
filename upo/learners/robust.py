"""Objectives under the worst weights of a band around 1/p: unmeasured confounding."""

import torch
from torch import Tensor

from upo.core.distributed import gather_rows, rank, world_size
from upo.errors import InputError
from upo.functional.prediction import dr_loss, ips_loss
from upo.functional.sensitivity import weight_band, worst_weights
from upo.learners.prediction import inverse_propensity
from upo.models.estimator import Estimator
from upo.pairs import Batch


class RobustInversePropensity:
    """RD-IPS: IPS under the worst weights of the band, of the sum that 1/p has.

    Args:
        gamma: How far the odds of a propensity may be wrong, as a factor of at least 1.

    Raises:
        InputError: If it is below 1.
    """

    replayable = True

    importance = staticmethod(inverse_propensity)

    def __init__(self, *, gamma: float = 1.5) -> None:
        if not 1 <= gamma < float("inf"):
            raise InputError(
                f"gamma of the robust objective must be at least 1, got {gamma}; try 1.5 (1 trusts "
                "the propensities)."
            )
        self.gamma = gamma

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        e = estimator.errors(batch.rows)
        p_hat = self.worst(estimator.p_hat(batch.rows), e.detach())
        return ips_loss(e, p_hat, estimator.space.density)

    def worst(self, p_hat: Tensor, gain: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Propensities of the worst weights: the adversary, which sees the whole batch."""
        every, gains = gather_rows(p_hat), gather_rows(gain)
        low, high = weight_band(every, self.gamma)
        weight = worst_weights(gains, low, high, (1.0 / every).sum(-1))
        if world_size() == 1:
            return 1.0 / weight
        mine = gather_rows(torch.full_like(p_hat[:1], rank()))[0] == rank()
        return 1.0 / weight[:, mine]


class RobustDoublyRobust(RobustInversePropensity):
    """RD-DR: DR under the weights of the band that are worst for what imputation leaves."""

    replayable = True

    reads = ("imputation",)

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        rows = batch.rows
        e, e_hat = estimator.errors(rows), estimator.imputed(rows)
        p_hat = self.worst(estimator.p_hat(rows), (e - e_hat).detach())
        e_hat_d = estimator.imputed(batch.pairs)
        return dr_loss(e, e_hat, p_hat, e_hat_d, estimator.space.density)


class BenchmarkedDoublyRobust(RobustInversePropensity):
    """BRD-DR: DR under the weights that are worst for what it loses against a frozen benchmark.

    The adversary weighs rows where e - e_hat exceeds that of the benchmark, so it may not raise
    errors that any model has.

    Source: Ding et al., KDD 2022 (BRD). Differs: the adversary reads the excess, as the paper has
    it; public code computes the benchmark's loss and does not use it.

    Args:
        gamma: As of ``RobustInversePropensity``.
        benchmark: Role of the benchmark's prediction.
    """

    replayable = True

    reads = ("imputation",)

    def __init__(self, *, gamma: float = 1.5, benchmark: str = "benchmark") -> None:
        super().__init__(gamma=gamma)
        self.benchmark = benchmark

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        rows = batch.rows
        e, e_hat = estimator.errors(rows), estimator.imputed(rows)
        p_hat = self.worst(estimator.p_hat(rows), self.excess(estimator, batch))
        return dr_loss(e, e_hat, p_hat, estimator.imputed(batch.pairs), estimator.space.density)

    @torch.no_grad()
    def excess(self, estimator: Estimator, batch: Batch) -> Tensor:  # [R, B]
        """What e - e_hat of the prediction exceeds that of the benchmark by, on rows of O."""
        rows, g_logit = batch.rows, estimator.logit("imputation", batch.rows)
        gap = [
            estimator.form.error(f, rows.labels) - estimator.form.imputed(f, g_logit)
            for f in (estimator.logit(role, rows) for role in ("prediction", self.benchmark))
        ]
        return gap[0] - gap[1]
