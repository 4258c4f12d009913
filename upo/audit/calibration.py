"""Expected calibration error of given propensities, beside what correct ones would give."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upo.audit.pairs import AuditPairs
from upo.functional.binning import bins_from_edges, equal_mass_edges, equal_width_bins

Floats = NDArray[np.float64]

RULES = ("equal_width", "equal_mass")
DRAWS = 999  # simulated tables, so the smallest p-value is 0.001
CELLS = 512  # rows of nearly equal propensity whose o are drawn together


@dataclass(frozen=True, eq=False)
class Calibration:
    """One bin rule's ECE and reliability diagram; arrays are ``[M]``, by bin.

    Attributes:
        rule: ``equal_width`` or ``equal_mass``.
        ece: Weighted mean of the absolute gap between the bins' observed and predicted rate.
        null_mean: Mean of the ECE if the propensities were correct.
        null_95: Its 95 % quantile.
        debiased: ``ece - null_mean``, at least 0.
        p_value: Share of simulated tables (the real one added) with an ECE at least as large.
        low: Lower bin edges.
        high: Upper bin edges.
        p_hat: Mean propensity; NaN in an empty bin.
        observed: Share observed; NaN in an empty bin.
        count: Rows; with weights, the rows of weight 1 that would be as informative.
    """

    rule: str
    ece: float
    null_mean: float
    null_95: float
    debiased: float
    p_value: float
    low: Floats
    high: Floats
    p_hat: Floats
    observed: Floats
    count: Floats


def calibration(pairs: AuditPairs, rule: str, num_bins: int, seed: int) -> Calibration:
    r"""Compare the ECE with its distribution under o ~ Bernoulli(p_hat).

    An ECE of sampled o is above 0 even at the true propensities: in a bin of n pairs
    :math:`E|\bar o - \bar p|` is about :math:`\sqrt{2 p (1 - p) / (\pi n)}`. So 999 tables are
    drawn with the propensities taken as true. Rows next to each other in the order of the
    propensity (at most N / 512) are drawn as one binomial of their mean, so the cost does not grow
    with N.

    Source: Bröcker and Smith, "Increasing the reliability of reliability diagrams", Weather and
    Forecasting 22 (2007), 651-661 (consistency resampling).
    """
    p = torch.from_numpy(pairs.p)
    if rule == "equal_mass":
        cuts = equal_mass_edges(p, num_bins, torch.from_numpy(pairs.weight))
        index = bins_from_edges(p, cuts)
        low, high = (torch.cat(x).numpy() for x in ((p.min()[None], cuts), (cuts, p.max()[None])))
    else:
        index = equal_width_bins(p, num_bins)
        low, high = np.arange(num_bins) / num_bins, np.arange(1, num_bins + 1) / num_bins
    code = index.numpy()

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(code, values, minlength=num_bins), dtype=np.float64)

    w, o = pairs.weight, pairs.observed
    mass, p_sum, o_sum = sums(w), sums(w * pairs.p), sums(w * o)
    variance = sums(pairs.variance * pairs.scale**2)
    null = _null(pairs, index, num_bins, seed) / pairs.total
    value = float(np.abs(o_sum - p_sum).sum()) / pairs.total
    with np.errstate(invalid="ignore", divide="ignore"):
        count = mass * sums(w * pairs.p * (1 - pairs.p)) / variance
        return Calibration(
            rule=rule,
            ece=value,
            null_mean=float(null.mean()),
            null_95=float(np.quantile(null, 0.95)),
            debiased=max(0.0, value - float(null.mean())),
            p_value=float(1 + (null >= value).sum()) / (1 + DRAWS),
            low=np.asarray(low, dtype=np.float64),
            high=np.asarray(high, dtype=np.float64),
            p_hat=p_sum / mass,
            observed=o_sum / mass,
            count=np.nan_to_num(count),
        )


def _null(pairs: AuditPairs, index: Tensor, num_bins: int, seed: int) -> Floats:  # [DRAWS]
    """Sums over bins of |sum of w (o - p)| in simulated tables."""
    n = len(pairs)
    order = np.argsort(pairs.p, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) * CELLS // n
    _, cell, rows = np.unique(
        index.numpy() * CELLS + place, return_inverse=True, return_counts=True
    )
    bins = np.empty(len(rows), dtype=np.int64)
    bins[cell] = index.numpy()
    q = np.bincount(cell, pairs.q) / rows
    scale = np.bincount(cell, pairs.scale) / rows
    draws = np.random.default_rng([seed, 1]).binomial(rows, q, size=(DRAWS, len(rows)))
    residual = (draws - rows * q) * scale
    member = np.zeros((len(rows), num_bins))
    member[np.arange(len(rows)), bins] = 1.0
    return np.asarray(np.abs(residual @ member).sum(1), dtype=np.float64)
