"""The closed-form player that says how much spread of an imputation is trusted (CDR)."""

import torch

from upo.core.distributed import gather_rows
from upo.functional.imputation import relative_spread
from upo.learners.base import Learner, Logs
from upo.models.conservative import ALL, Conservative
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler, sampled_pairs

SAMPLE = 4096  # pairs of D, all of a smaller one


class Trust(Learner):
    """Sets tau of a ``Conservative`` at each epoch to what the given share of D meets.

    Args:
        estimator: The networks.
        network: Role of the conservative imputed errors.

    Raises:
        InputError: If that network is another.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, network: str = "imputed") -> None:
        super().__init__(estimator, network=network)
        self.conservative = estimator.network_of(network, Conservative)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Take the quantile of a sample of D; every network is frozen."""
        conservative = self.conservative
        pairs = sampled_pairs(self.estimator.space, "trust", SAMPLE)
        spread = gather_rows(relative_spread(conservative.drawn(self.estimator, pairs)))
        count = round(conservative.share * spread.shape[-1])  # that keep theirs
        if count == spread.shape[-1]:
            conservative.tau.fill_(ALL)
        elif count:  # between the last pair that is trusted and the next
            ordered = spread.sort(dim=-1).values
            conservative.tau.copy_(ordered[:, count - 1 : count + 1].mean(-1, keepdim=True))
        else:
            conservative.tau.fill_(-1.0)
        self.estimator.stepped(self.network)

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within an epoch."""
        return {"tau": self.conservative.tau[:, 0].clone()}
