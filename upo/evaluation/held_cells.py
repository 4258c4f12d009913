"""Cross-entropy of propensities on held-out cells of D, observed ones and others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from upo.core.distributed import batch_sum
from upo.core.sampling import Permutation, stream_key
from upo.evaluation.mar import rank_blocks
from upo.functional.pointwise import cross_entropy
from upo.models.estimator import Estimator
from upo.pairs import Pairs, PairSpace

MOST_ROWS = 2**20  # rows of the log among which held-out ones are looked for
MOST_CELLS = 2**17  # held-out cells of which the unobserved ones are judged
MOST_PROBED = 2**15  # held-out cells from whose propensities bins are cut


class HeldCells:
    """The held-out cells that judge propensities, found once; the same on any number of ranks.

    Observed cells are rare, so they are not sampled with the others: all held-out cells among the
    rows of the log are judged (among 2^20 rows of a larger log), and the unobserved ones of up to
    2^17 held-out cells, with the weights by which both stand for all held-out cells.

    Args:
        space: The pair space.
    """

    def __init__(self, space: PairSpace) -> None:
        self.space = space
        device = space.keys.device
        rows = torch.arange(min(MOST_ROWS, space.n_observed), device=device)
        if space.n_observed > MOST_ROWS:
            key = stream_key(torch.zeros(1, dtype=torch.int64, device=device), "judged_rows")
            rows = Permutation(space.n_observed)(rows, key)
        keys = space.keys[rows].expand(space.replicas, -1)
        held = ~space.in_train_cells(keys)
        most = int(held.sum(-1).max())
        order = torch.argsort(held.to(torch.int8), dim=-1, descending=True, stable=True)[:, :most]
        self.observed = keys.gather(1, order)  # [R, most], a replica with fewer is filled up
        self.counts = held.gather(1, order)
        self.observed_weight = space.n_observed / len(rows)
        self.drawn = min(MOST_CELLS, space.n_held_cells)
        self.drawn_weight = space.n_held_cells / max(1, self.drawn)

    def __len__(self) -> int:
        return self.drawn

    @torch.no_grad()
    def cross_entropy(self, estimator: Estimator) -> Tensor:  # [R] float64
        """Mean cross-entropy of the unclipped propensities over the held-out cells."""
        space = self.space
        total = torch.zeros(space.replicas, 2, dtype=torch.float64, device=space.keys.device)
        for pairs, weight, observed in self.cells():
            total += self._sums(estimator, pairs, weight, float(observed))
        total = batch_sum(total.unsqueeze(-1))
        return total[:, 0] / total[:, 1]

    def cells(self) -> Iterator[tuple[Pairs, Tensor, bool]]:
        """This rank's share: pairs, the number of cells each stands for, whether all have o = 1.

        Weights ``[R, B]`` are 0 where a pair does not count.
        """
        space = self.space
        for lo, hi in rank_blocks(self.observed.shape[-1], space.replicas):
            keys, weight = self.observed[:, lo:hi], self.counts[:, lo:hi].double()
            yield space.pairs_at(keys, hi - lo), weight * self.observed_weight, True
        for lo, hi in rank_blocks(self.drawn, space.replicas):
            pairs = space.pairs(space.held_cells(lo, hi), hi - lo)
            yield pairs, (~pairs.observed).double() * self.drawn_weight, False

    def probe(self) -> Pairs:
        """Some of the held-out cells, observed or not, drawn uniformly; the same on every rank."""
        size = min(MOST_PROBED, self.drawn)
        return self.space.pairs(self.space.held_cells(0, size), size)

    def _sums(self, estimator: Estimator, pairs: Pairs, weight: Tensor, observed: float) -> Tensor:
        """Weighted sums of the cross-entropy and of the weights, ``[R, 2]``."""
        p = estimator.propensity(pairs).double().clamp(1e-7, 1 - 1e-7)
        loss = cross_entropy(torch.logit(p), torch.full_like(p, observed))
        return torch.stack([(weight * loss).sum(-1), weight.sum(-1)], dim=-1)
