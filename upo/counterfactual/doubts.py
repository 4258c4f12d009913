r"""When an estimate is not to be trusted: the weights of the log and of D say so.

**Propensities that do not fit D.** The sum of v / p over the log has the mean V, the sum of v over
D. Its variance is estimated without bias by :math:`\sum_O v^2 (1-p)/p^2`, but that is itself small
where the largest weights were not seen, which is when the sum is small, too. So what the sum is
short of V is taken for unseen pairs of the largest weight of the log, which adds its own variance:
the sum then counts where it is 16 such weights short or more, which unseen pairs of that weight are
by chance in one log of e^16, and those of larger weights more often.

**One pair for a part of D.** Where the rarest pairs decide, a log has them or has not.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from upo.counterfactual.estimates import Observed, Values
from upo.counterfactual.tables import Candidates, Log
from upo.errors import DoubtfulEstimateWarning

CLEAR = 4.0  # standard errors
FACTOR = 2.0  # between the sum and V: learned propensities are less exact than their noise
PART = 0.05  # of D that one pair stands for
TIMES = 20.0  # the mean weight
NONE, MISFIT, HEAVY = "no", "propensities", "one pair"


class Doubt(NamedTuple):
    """What there is to doubt of a metric.

    Attributes:
        kind: ``no``, ``propensities`` or ``one pair``.
        ratio: Sum of the weights over V; NaN where D is not known.
        sentence: What to say, with ``{}`` for the names of the metrics.
    """

    kind: str
    ratio: float
    sentence: str = ""


def doubt_of_pairs(rows: Log, candidates: Candidates) -> Doubt:
    """Judge the whole log against all pairs of D, whatever a metric weighs."""
    one = np.ones(len(rows.propensities))
    total = float(len(candidates.scores)) if candidates.complete else None
    seen = Observed(one, one, rows.propensities, False, total)
    return doubt(seen, rows.unbalanced, rows.learned)


def doubt(seen: Observed, given: Values, learned: bool, whole: Doubt | None = None) -> Doubt:
    """Judge a metric by its weights.

    Args:
        seen: What the log shows of it.
        given: ``[n]`` its propensities before they were made to agree with D.
        learned: Whether they were learned from a log.
        whole: Of all pairs: propensities that do not fit D serve no metric.
    """
    total = seen.total
    if not total or not len(given):
        return Doubt(NONE, math.nan)
    raw = replace(seen, propensity=given, least=None if learned else seen.least)
    sum_ = float(raw.inverse.sum())
    ratio, off = sum_ / total, raw.disagreement
    if whole is not None and whole.kind == MISFIT:
        return whole._replace(ratio=ratio)
    if abs(off) > CLEAR and not (learned and 1 / FACTOR <= ratio <= FACTOR):
        return Doubt(MISFIT, ratio, _misfit(seen.share, sum_, total, off))
    part = seen.largest / total
    if not seen.share and part > PART and part * len(given) > TIMES:
        return Doubt(HEAVY, ratio, _heavy(part, total))
    return Doubt(NONE, ratio)


def warn(doubts: Mapping[str, Doubt], stacklevel: int) -> None:
    """One warning of each kind.

    Args:
        doubts: By the name of the metric.
        stacklevel: As of ``warnings.warn``, seen from here.
    """
    for kind in (MISFIT, HEAVY):
        mine = [name for name, found in doubts.items() if found.kind == kind]
        if mine:
            text = doubts[mine[0]].sentence.format(", ".join(mine))
            warnings.warn(text, DoubtfulEstimateWarning, stacklevel=stacklevel + 1)


def _misfit(share: bool, sum_: float, total: float, off: float) -> str:
    size = f"the lists of D weigh {total:,.0f}" if share else f"D has {total:,.0f} pairs"
    away = f", {abs(off):.1f} standard errors away" if math.isfinite(off) else ""
    return (
        "The propensities do not fit D, so estimates of {} are not to be trusted: their inverses "
        f"add up to {sum_:,.0f} over the log, and {size}{away}. Check that "
        "each is P(observed) of its pair in this very log, not scaled, clipped or of another "
        "sample, and leave out of scores the pairs that could not be observed."
    )


def _heavy(part: float, total: float) -> str:
    return (
        f"One pair of the log stands for {part * total:,.0f} of {total:,.0f}, {part:.0%} of D, so "
        "intervals of {} may hold the truth more rarely than they say. Leave pairs that are so "
        "rarely observed out of scores, and compare ips, snips and dr: where they disagree, trust "
        "none."
    )
