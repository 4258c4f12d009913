"""Maps from logits to calibrated probabilities, fitted to logits that are out of fold.

A fit takes weighted rows: the logit z of a propensity that did not see the row, the indicator o,
and how many pairs of D the row stands for.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]

POINTS = 2048  # quantiles of the logits that are told apart
BINS = 40  # of the histogram
LEAST_ONES = 30  # observed rows that an end block, or a bin, rests on: its rate is known to 18 %
LEAST_ZEROS = 10  # unobserved ones likewise


class Steps(NamedTuple):
    """Levels over ranges of the logit, ascending.

    Attributes:
        ends: ``[K]`` largest logit of each range.
        centers: ``[K]`` weighted mean logit of each.
        levels: ``[K]`` calibrated probability of each, in (0, 1).
    """

    ends: Floats
    centers: Floats
    levels: Floats

    def line(self, z: Floats) -> Floats:
        """Straight from center to center, constant beyond them; ``[N]`` -> ``[N]``."""
        return np.asarray(np.interp(z, self.centers, self.levels), dtype=np.float64)

    def step(self, z: Floats) -> Floats:
        """The level of the range that each logit lies in; ``[N]`` -> ``[N]``."""
        place = np.searchsorted(self.ends, z)
        return np.asarray(self.levels[np.minimum(place, len(self.ends) - 1)], dtype=np.float64)


class _Sums(NamedTuple):
    """Sums over groups of rows of neighbouring logits, ascending."""

    ends: Floats
    weight: Floats  # sum of w
    ones: Floats  # sum of w o
    logits: Floats  # sum of w z
    seen: Floats  # rows with o = 1
    unseen: Floats  # rows with o = 0

    def merged(self, starts: NDArray[np.int64]) -> "_Sums":
        """Groups that begin at the given places, put together."""
        stops = np.append(starts[1:], len(self.ends))
        return _Sums(self.ends[stops - 1], *(np.add.reduceat(x, starts) for x in self[1:]))


def isotonic(z: Floats, o: Floats, w: Floats) -> Steps:
    r"""Isotonic regression of o on z: the non-decreasing steps of least weighted squared error.

    Within a step the probabilities of these logits sum to their observed pairs, so for every
    function h of the level
    :math:`\sum_O h / \hat p = \sum_D h`: balance of whatever depends on the propensity alone. The
    lowest step holds at least 30 observed rows and the highest 10 others: no level is 0 or 1. Equal
    logits are one point, and so are those between neighbours of 2,048 quantiles, half of them of
    the observed rows and half of all.

    Source: Barlow et al., Statistical Inference under Order Restrictions, 1972 (pooling adjacent
    violators); van der Laan, Lin, Carone, Luedtke, "Stabilized inverse probability weighting via
    isotonic calibration", CLeaR 2025 (of weights).

    Args:
        z: ``[N]`` logits.
        o: ``[N]`` 0 or 1, both present.
        w: ``[N]`` pairs that each row stands for, above 0.
    """
    sums = _sums(z, o, w, POINTS)
    blocks = isotonic_regression(sums.ones / sums.weight, weights=sums.weight).blocks
    sums = sums.merged(np.asarray(blocks[:-1], dtype=np.int64))
    low = int(np.searchsorted(np.cumsum(sums.seen), LEAST_ONES))
    high = int(np.searchsorted(np.cumsum(sums.unseen[::-1]), LEAST_ZEROS))
    starts = np.arange(len(sums.ends))
    kept = starts[(starts > low) & (starts < len(starts) - high)]
    return _steps(sums.merged(np.unique(np.append(0, kept))))


def histogram(z: Floats, o: Floats, w: Floats) -> Steps:
    """Observed rates of 40 bins of equal mass, of at least 30 observed rows each.

    Source: Zadrozny, Elkan, "Obtaining calibrated probability estimates", ICML 2001, section 3.2.

    Args:
        z: ``[N]`` logits.
        o: ``[N]`` 0 or 1, both present.
        w: ``[N]`` pairs that each row stands for, above 0.
    """
    sums = _sums(z, o, w, POINTS)
    wanted = sums.weight.sum() / BINS
    starts, mass, seen = [0], 0.0, 0.0
    for place in range(len(sums.ends) - 1):
        mass, seen = mass + sums.weight[place], seen + sums.seen[place]
        if mass >= wanted and seen >= LEAST_ONES:
            starts.append(place + 1)
            mass, seen = 0.0, 0.0
    if len(starts) > 1 and sums.seen[starts[-1] :].sum() < LEAST_ONES:
        starts.pop()
    return _steps(sums.merged(np.array(starts)))


def _sums(z: Floats, o: Floats, w: Floats, points: int) -> _Sums:
    """Rows grouped by quantiles of the logit: half of the observed ones, half of all."""
    order = np.argsort(z, kind="stable")
    z, o, w = z[order], o[order], w[order]
    place = np.cumsum(w * o) / (w * o).sum() + np.cumsum(w) / w.sum()  # 0..2
    group = np.minimum((place * (points / 2)).astype(np.int64), points - 1)
    new = np.append(True, z[1:] != z[:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(z)), 0))
    group = group[first]  # equal logits together
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    rows = _Sums(z, w, w * o, w * z, o, 1 - o)
    return rows.merged(starts)


def _steps(sums: _Sums) -> Steps:
    rate = np.minimum(sums.ones / sums.weight, 1 - 1e-6)
    return Steps(sums.ends, sums.logits / sums.weight, rate)
