"""Mean ranks of rows over blocks, and how far apart they must be to differ."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

Floats = NDArray[np.float64]
BLOCKS = 30  # of test users, of which there are rarely fewer


class Ranks(NamedTuple):
    """Mean ranks, 1 the best.

    Attributes:
        mean: ``[K]``.
        critical: Difference of mean ranks below which two rows do not differ at 5 % (Nemenyi).
        p: Of Friedman's test that no row differs; NaN for two rows.
        blocks: Number of blocks.
    """

    mean: Floats
    critical: float
    p: float
    blocks: int


def mean_ranks(values: ArrayLike, *, lower: bool = False) -> Ranks:
    r"""Ranks of K rows within each of N blocks, ``[N, K]``, and their critical difference.

    .. math:: q_{.05, K} \sqrt{K (K + 1) / (6 N)}

    with q the quantile of the studentised range divided by :math:`\sqrt 2`. Ties share their mean.

    Source: Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006.

    Args:
        values: A figure of each row in each block.
        lower: Whether a lower figure is better.

    Raises:
        ValueError: If there are fewer than two rows or two blocks, or a value is missing.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or np.isnan(table).any():
        raise ValueError(f"mean_ranks needs two blocks and two rows at least, got {table.shape}.")
    blocks, rows = table.shape
    ranks = rankdata(table if lower else -table, axis=1)
    q = float(studentized_range.ppf(0.95, rows, np.inf)) / math.sqrt(2)
    flat = bool((ranks == ranks[:, :1]).all())
    p = math.nan
    if rows > 2:
        p = 1.0 if flat else float(friedmanchisquare(*table.T).pvalue)
    return Ranks(ranks.mean(0), q * math.sqrt(rows * (rows + 1) / (6 * blocks)), p, blocks)


def cliques(ranks: ArrayLike, critical: float) -> list[tuple[int, int]]:
    """Longest runs of sorted mean ranks that lie within the critical difference.

    Args:
        ranks: Ascending.
        critical: Difference.

    Returns:
        First and last position of each run of two at least.

    >>> cliques([1.0, 1.5, 2.8, 3.0, 5.0], 1.4)
    [(0, 1), (1, 2), (2, 3)]
    """
    at = np.asarray(ranks, dtype=np.float64)
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(at):
        last = int(np.searchsorted(at, rank + critical, side="right")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def user_blocks(values: Floats, blocks: int = BLOCKS) -> Floats:  # [K, U] -> [N, K]
    """Means of each row over N blocks of users, the same for all rows; fewer where users are few.

    Users are spread over the blocks in turn.
    """
    n = min(blocks, values.shape[1])
    return np.stack([values[:, block::n].mean(axis=1) for block in range(n)])
