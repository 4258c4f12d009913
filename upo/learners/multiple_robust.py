"""Multiple robustness: the player that balances, and the prediction objective."""

import torch
from torch import Tensor

from upo.functional.multiple_robust import multiple_robust_loss
from upo.learners.base import Learner, Logs
from upo.models.ensemble import Balance
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler


class BalanceLearner(Learner):
    """Solves for the weights on all training rows, each epoch.

    Logs the largest relative miss of a column's balance (rounding without a ridge, if the mean over
    D lies in the span of the log's rows), and of the batch the least weight, which should not be
    far below 0, and the mean weight, which is near 1.

    Args:
        estimator: The networks.
        network: Role of the balance.

    Raises:
        InputError: If that network is no ``Balance``, or lacks what it balances.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, network: str = "balance") -> None:
        super().__init__(estimator, network=network)
        self.balance = estimator.network_of(network, Balance)
        estimator.check_reads(self.balance)

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Solve; every network is frozen."""
        self.balance.solve(self.estimator)
        self.estimator.stepped(self.network)

    @torch.no_grad()
    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within an epoch."""
        omega = self.balance.weight(self.estimator, batch.rows)
        miss = self.balance.miss.to(omega.dtype)
        return {"min_weight": omega.amin(-1), "mean_weight": omega.mean(-1), "miss": miss}


class MultipleRobust:
    """Observed errors with the weights that balance all propensities and imputed errors.

    Args:
        balance: Role of the balance.
    """

    replayable = True

    def __init__(self, *, balance: str = "balance") -> None:
        self.balance = balance
        self.reads = (balance,)

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``."""
        omega = estimator.network_of(self.balance, Balance).weight(estimator, batch.rows)
        return multiple_robust_loss(estimator.errors(batch.rows), omega)
