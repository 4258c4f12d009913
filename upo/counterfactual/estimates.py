r"""IPS, SNIPS and DR estimates of a weighted mean over D from observed pairs, with intervals.

A metric is :math:`\mu = \sum_D v_{ui} l_{ui} / V` with known weights :math:`v`, total
:math:`V = \sum_D v` and a value :math:`l` (a loss, or the label) that is seen only where
:math:`o_{ui} = 1`. Values are fixed; the indicators are independent Bernoulli draws of known
propensities, and all randomness is theirs. With :math:`w = v / p`, the variance of
:math:`\sum_O w l` is :math:`\sum_D v^2 l^2 (1 - p) / p`, for which
:math:`\sum_O w^2 (1 - p) l^2` is unbiased.

Losses get the Wald interval of that variance (IPS: its score interval, as below). A mean of
labels is a share, whose rare class is seen through few, heavily weighted pairs: the Wald interval
then covers far too rarely (64 % instead of 95 % for a precision of 0.9 with three misses seen). A
share :math:`\theta` says how much weight each class has in D, :math:`\theta V` and
:math:`(1 - \theta) V`, so only the variance for each unit of weight in a class has to be
estimated; the interval holds every :math:`\theta` that is within z standard deviations under its
own variance. With constant propensities p and SNIPS this is Wilson's interval with the correction
of a finite population, 1 - p.

**Weights that were not seen.** The largest weights belong to the rarest pairs. A log without them
looks as if its variance were small, and IPS and DR lie on one side: with propensities down to .002
in 4,800 pairs, intervals covered in 79 to 93 % where they said 95 %. The log says so by itself: its
weights should add up to V. What they are short of it, ``M``, is taken for pairs of the largest
weight of the log, which adds M times that weight to the variance; of it, what chance does to the
sum is left out for shares, whose pseudo-observation has allowed for it. Given how much of D a
sample stands for, errors have another variance than over all samples (Holt, Smith).

Learned propensities multiply the standard error by what ``upo.counterfactual.learned`` finds.

Sources: Horvitz, Thompson, JASA 1952 (IPS and its variance); Schnabel et al., "Recommendations as
Treatments", ICML 2016 (IPS and SNIPS of recommenders); Wang et al., "Doubly robust joint learning",
ICML 2019 (DR); Wilson, JASA 1927 (score intervals); Holt, Smith, "Post stratification", JRSS A 1979
(variance given the sizes that were drawn). The half pseudo-observation and the largest weight of
what was not seen are our own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

Values = np.ndarray[Any, np.dtype[np.float64]]
PSEUDO = 0.5  # observations of the largest weight that each class is given beside its own
PSEUDO_DR = 0.25  # fewer where an imputation already says what an unseen one would be
ROUNDING = 1e-9  # of V: a shortfall that float64 makes
CHANCE = 3.0  # standard deviations that the weights of a share may be short of V


class Interval(NamedTuple):
    """An estimate and its interval; NaN and the whole range where nothing was observed."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Observed:
    """What the log shows of a metric: the observed pairs of positive weight, n of them.

    Attributes:
        weight: ``[n]`` v > 0.
        value: ``[n]`` l; 0 or 1 for a share, at least 0 otherwise.
        propensity: ``[n]`` p in (0, 1].
        share: Whether the metric is a mean of labels, so within [0, 1].
        total: V, the sum of v over D; None if D is not known.
        imputed: ``[n]`` imputed values, for DR.
        imputed_mean: Their weighted mean over D, for DR.
        learned: Variance of the sum of ``w * deviation`` with learned propensities over that with
            known ones, of ``[n]`` deviations; None where they are known.
        least: Lowest propensity of the log, also of pairs without weight; that of these if None.
    """

    weight: Values
    value: Values
    propensity: Values
    share: bool
    total: float | None = None
    imputed: Values | None = None
    imputed_mean: float = math.nan
    learned: Callable[[Values], float] | None = None
    least: float | None = None

    def widened(self, z: float, deviation: Values) -> float:
        """The quantile, times what learning the propensities does to a standard error."""
        return z if self.learned is None else z * math.sqrt(self.learned(deviation))

    @property
    def inverse(self) -> Values:
        """``[n]`` w = v / p."""
        w: Values = self.weight / self.propensity
        return w

    @property
    def effective_sample_size(self) -> float:
        """Kish's: pairs of equal weight that would be as informative, ``(sum w)^2 / sum w^2``."""
        w = self.inverse
        return float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0

    def variance(self, deviation: Values) -> float:
        """Of the sum of ``w * deviation`` over O, without bias."""
        return float(((self.inverse * deviation) ** 2 * (1 - self.propensity)).sum())

    @property
    def largest(self) -> float:
        """The weight of a pair of the log's lowest propensity."""
        least = float(self.propensity.min()) if self.least is None else self.least
        return float(self.weight.mean()) / least

    @property
    def heaviest(self) -> float:
        """The variance of such a pair for each unit of its weight in D."""
        return self.largest - float(self.weight.mean())

    @property
    def disagreement(self) -> float:
        """By how many standard errors the sum of the weights differs from V, if p is right."""
        if self.total is None or not len(self.weight):
            return 0.0
        off = float(self.inverse.sum()) - self.total
        if abs(off) <= ROUNDING * self.total:
            return 0.0
        variance = self.variance(np.ones_like(self.weight)) + self.unseen() * self.heaviest
        return off / math.sqrt(variance) if variance else math.copysign(math.inf, off)

    def unseen(self, chance: float = 0.0) -> float:
        """Weight of D that the log's pairs are short of, beyond some standard deviations of it."""
        if self.total is None or not len(self.weight):
            return 0.0
        deviation = math.sqrt(self.variance(np.ones_like(self.weight)))
        short = self.total - float(self.inverse.sum()) - chance * deviation
        return short if short > ROUNDING * self.total else 0.0

    def whole_variance(self, deviation: Values) -> float:
        """The variance with that of the unseen weight, whose deviations are like those seen."""
        unseen, w = self.unseen(), self.inverse
        extra = unseen * self.heaviest * float((w * deviation**2).sum() / w.sum()) if unseen else 0
        return self.variance(deviation) + extra

    def class_variance(
        self, label: int, deviation: Values, observations: float = PSEUDO, unseen: float = 0.0
    ) -> float:
        """Variance of the sum of ``w * deviation`` for each unit of weight that a class has in D.

        Half an observation of the largest weight is added, as in Jeffreys' intervals: a class of
        which little or nothing was seen is not one without variance. So is unseen weight, which
        may all be of this class.
        """
        mine = self.value == label
        lowest = self.propensity.min()
        pseudo = float(self.weight.mean() / lowest)
        extra = observations * pseudo**2 * (1 - lowest)
        extra = (extra + unseen * self.heaviest) * float((deviation**2).mean())
        mass = float(self.inverse[mine].sum()) + observations * pseudo + unseen
        return float((self.variance(np.where(mine, deviation, 0.0)) + extra) / mass)


def ips(seen: Observed, z: float) -> Interval:
    """Inverse propensity scoring: ``sum_O w l / V``, without bias."""
    total = _known_total(seen)
    if seen.share and not len(seen.weight):
        return Interval(math.nan, 0.0, 1.0)
    z = seen.widened(z, seen.value)
    sum_ = float((seen.inverse * seen.value).sum())
    if seen.share:
        unit = seen.class_variance(1, np.ones_like(seen.value), unseen=seen.unseen(CHANCE))
    else:  # the mean value of what was seen stands for that of what was not
        mass = sum_ * (1 + seen.unseen() / float(seen.inverse.sum())) if sum_ else 0.0
        unit = seen.whole_variance(seen.value) / mass if mass else 0.0
    estimate, half = sum_ / total, z * z * unit / (2 * total)
    spread = math.sqrt(half * half + 2 * half * estimate)
    return _inside(seen, estimate, estimate + half - spread, estimate + half + spread)


def snips(seen: Observed, z: float) -> Interval:
    """Self-normalised IPS: ``sum_O w l / sum_O w``; its bias vanishes as 1 / n."""
    if not len(seen.weight):
        return Interval(math.nan, 0.0, 1.0)
    w = seen.inverse
    mass, sum_ = float(w.sum()), float((w * seen.value).sum())
    estimate = sum_ / mass
    z = seen.widened(z, seen.value - estimate)
    if not seen.share:
        spread = z * math.sqrt(seen.variance(seen.value - estimate)) / mass
        return Interval(estimate, max(estimate - spread, 0.0), estimate + spread)
    one = np.ones_like(w)
    unit = [seen.class_variance(label, one) for label in (0, 1)]

    def excess(theta: float) -> float:
        variance = theta * (1 - theta) * (theta * unit[0] + (1 - theta) * unit[1])
        return float((sum_ - theta * mass) ** 2 - z * z * _known_total(seen) * variance)

    return Interval(estimate, _root(excess, estimate, 0.0), _root(excess, estimate, 1.0))


def dr(seen: Observed, z: float) -> Interval:
    """Doubly robust: the imputed mean over D, corrected by IPS of what it misses; without bias."""
    total = _known_total(seen)
    if seen.imputed is None:
        raise ValueError("The doubly robust estimate needs imputed values.")
    residual = seen.value - seen.imputed
    estimate = seen.imputed_mean + float((seen.inverse * residual).sum()) / total
    z = seen.widened(z, residual)
    if not seen.share:
        spread = z * math.sqrt(seen.whole_variance(residual)) / total
        return _inside(seen, estimate, max(estimate - spread, 0.0), estimate + spread)
    if not len(seen.weight):
        return Interval(estimate, 0.0, 1.0)
    unseen = seen.unseen(CHANCE)
    unit = [
        seen.class_variance(label, missed, PSEUDO_DR, unseen) for label, missed in _residuals(seen)
    ]
    scale = z * z / total
    middle = estimate + scale * (unit[1] - unit[0]) / 2
    spread = math.sqrt(max(middle**2 - estimate**2 + scale * unit[0], 0.0))
    return _inside(seen, estimate, middle - spread, middle + spread)


def _residuals(seen: Observed) -> list[tuple[int, Values]]:
    assert seen.imputed is not None  # dr has looked
    return [(0, seen.imputed), (1, 1.0 - seen.imputed)]


def _known_total(seen: Observed) -> float:
    if seen.total is None:
        raise ValueError("This estimate needs the size of D.")
    return seen.total


def _inside(seen: Observed, estimate: float, low: float, high: float) -> Interval:
    """The interval within what the metric can be; the estimate stays as it is."""
    if seen.share:
        low, high = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
    return Interval(estimate, low, high)


def _root(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Where the excess turns positive between a point inside the interval and an end."""
    if excess(end) <= 0 or inside == end:
        return end
    start = inside + 1e-9 * (end - inside)  # at 0 and 1 themselves the variance is none
    if excess(start) >= 0:  # everything was observed
        return inside
    return float(brentq(excess, start, end))


Estimator = Callable[[Observed, float], Interval]
ESTIMATORS: dict[str, Estimator] = {f.__name__: f for f in (ips, snips, dr)}
IMPUTING = (dr.__name__,)  # those that need imputed values
RATIOS = (snips.__name__,)  # those that need not know D
