"""Cells of D that a run has kept back from all that learns, as judges of propensities."""

from collections.abc import Iterator

import torch
from torch import Tensor

from upo.data.withheld import Withheld
from upo.evaluation.held_cells import MOST_CELLS, MOST_PROBED, MOST_ROWS
from upo.evaluation.mar import rank_blocks
from upo.pairs import Pairs, PairSpace


class UnseenCells:
    """Observed cells among those kept back, and a sample of the others; the same for every replica.

    Args:
        space: The pair space, whose D are the other cells.
        withheld: What was kept back.
    """

    def __init__(self, space: PairSpace, withheld: Withheld) -> None:
        self.space, self.withheld = space, withheld
        self.keys = withheld.keys.to(space.keys.device)
        self.observed = self.keys[:: -(-len(self.keys) // MOST_ROWS)]
        self.observed_weight = len(self.keys) / len(self.observed)
        size = space.n_users * space.n_items - len(withheld.cells)
        self.drawn = min(MOST_CELLS, size)
        self.drawn_weight = size / self.drawn

    def cells(self) -> Iterator[tuple[Pairs, Tensor, bool]]:
        """This rank's share: pairs, the number of cells each stands for, whether all have o = 1."""
        for lo, hi in rank_blocks(len(self.observed), self.space.replicas):
            pairs = self._pairs(self.observed[lo:hi])
            weight = torch.full(pairs.users.shape, self.observed_weight, device=self.keys.device)
            yield pairs, weight.double(), True
        for lo, hi in rank_blocks(self.drawn, self.space.replicas):
            keys = self._drawn(lo, hi)
            others = (~torch.isin(keys, self.keys)).double() * self.drawn_weight
            yield self._pairs(keys), others.expand(self.space.replicas, -1), False

    def probe(self) -> Pairs:
        """Some of the cells, observed or not, drawn uniformly; the same on every rank."""
        return self._pairs(self._drawn(0, min(MOST_PROBED, self.drawn)))

    def _drawn(self, lo: int, hi: int) -> Tensor:
        """Keys of a sample: the order of the cells is a random one."""
        first = len(self.withheld.cells)
        return self.withheld.cells(torch.arange(first + lo, first + hi, device=self.keys.device))

    def _pairs(self, keys: Tensor) -> Pairs:
        return self.space.pairs_at(keys.expand(self.space.replicas, -1), len(keys))
