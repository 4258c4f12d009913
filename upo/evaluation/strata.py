"""Moments of the rows of O, all visited, and of the sample that stands for the rest of D."""

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.metrics.sampling_error import (
    Stratum,
    bias_error,
    bmse_error,
    covariance,
    ece_error,
    estimated_mean,
    merged,
    stratum,
    variance_error,
)
from upo.pairs import Pairs


class Strata:
    """Standard errors of the four diagnostics where D is sampled.

    Args:
        n_observed: |O|.
        n_pairs: |D|.
    """

    def __init__(self, n_observed: int, n_pairs: int) -> None:
        self.sizes = {True: n_observed, False: n_pairs - n_observed}
        self.n_pairs = n_pairs
        self.parts: dict[tuple[str, bool], Stratum] = {}  # this rank's rows

    def add(self, name: str, x: Tensor, pairs: Pairs) -> None:
        """Take the rows ``[R, B, K]`` of a block of pairs, the same for every replica.

        A block of the sample counts its pairs outside O; a block of O has no others.
        """
        observed, nothing = pairs.observed[0], x[:, :0]
        of_log = bool(observed.all())
        parts = {True: x if of_log else nothing, False: nothing if of_log else x[:, ~observed]}
        for whole, rows in parts.items():
            before = self.parts.get((name, whole), stratum(nothing))
            self.parts[name, whole] = merged(before, stratum(rows))

    def error(self, name: str) -> Tensor:  # [R]
        """Standard error of one diagnostic over draws of the sample; the same on every rank."""
        mine = [(self._stratum(name, whole), size) for whole, size in self.sizes.items()]
        mean, cov = estimated_mean(mine), covariance(mine)
        if name == "ece":
            return ece_error(mean, cov)
        if name == "bmse":
            return bmse_error(mean, cov)
        return bias_error(cov) if name == "dr_bias" else variance_error(cov, self.n_pairs)

    def _stratum(self, name: str, whole: bool) -> Stratum:
        """The rows of all ranks."""
        rows, mean, scatter = self.parts[name, whole]
        mine = torch.tensor(float(rows), dtype=torch.float64, device=mean.device)
        count = sum_across_ranks(mine)
        both = sum_across_ranks(mine * mean) / count.clamp(min=1.0)
        gap = (mean - both).unsqueeze(-1)
        return Stratum(int(count), both, sum_across_ranks(scatter + mine * gap @ gap.mT))
