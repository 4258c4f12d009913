"""Paired differences of rows that share test users and seeds, and p-values of many of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
DRAWS = 2000
LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference with its bootstrap.

    Attributes:
        mean: Over seeds and users.
        low: Lower end of the 95 % interval; NaN where nothing can be drawn.
        high: Upper end.
        error: Standard deviation of the draws.
        p: Two-sided: twice the smaller share of draws beyond 0, at least 2 / (draws + 1).
    """

    mean: float
    low: float
    high: float
    error: float
    p: float


def crossed_bootstrap(
    difference: ArrayLike,  # [S, U], NaN where a seed has no row of a user
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Mean of a table of seeds x users, both drawn with repetition.

    Seeds and users are crossed: each seed is measured on the same users. Drawing one of them alone
    leaves the noise of the other out. Drawing both counts the noise of single cells three times, so
    intervals are rather too wide than too narrow. With one seed users alone are drawn, and the
    noise of the training is not in it.

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007.

    Args:
        difference: One row's pseudo values less another's.
        draws: Number of draws.
        seed: Of the draws.

    Raises:
        ValueError: If there is no table, or nothing in it.
    """
    table = np.asarray(difference, dtype=np.float64)
    if table.ndim != 2 or np.isnan(table).all():
        raise ValueError(f"crossed_bootstrap needs a table [S, U], got shape {table.shape}.")
    there = ~np.isnan(table)
    filled = np.where(there, table, 0.0)
    rng = np.random.default_rng(seed)
    n_seeds, n_users = table.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), draws).astype(float)
    totals = np.empty(draws)
    for first in range(0, draws, 100):  # [100, U] at once
        part = seeds[first : first + 100]
        users = rng.multinomial(n_users, np.full(n_users, 1 / n_users), len(part))
        sums, counts = (((part @ x) * users).sum(-1) for x in (filled, there.astype(float)))
        totals[first : first + 100] = sums / np.where(counts > 0, counts, np.nan)
    totals = totals[~np.isnan(totals)]
    mean = float(filled.sum() / there.sum())
    low, high = np.quantile(totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min(int((totals <= 0).sum()), int((totals >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(totals) + 1))
    return Difference(mean, float(low), float(high), float(totals.std()), p)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down; NaN ones are not counted.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6(2), 1979.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    known = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    adjusted, running = [math.nan] * len(p), 0.0
    for rank, (value, index) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * value))
        adjusted[index] = running
    return adjusted
