"""Tests of sums of independent indicators with known probabilities, and their multiplicity.

The null hypothesis is that the row's o are independent with the probabilities q. Then a count is
Poisson-binomial, and a weighted sum has a cumulant generating function in closed form: no test
here rests on large counts.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import norm

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
CLEAR = 2.0  # up to this |z| the normal p-value serves: no level in use could reject there
_STEPS = 60  # of the search for a saddle point; Newton takes about 5, bisection at most this


def count_p_values(o: Floats, q: Floats, codes: Integers, size: int) -> Floats:  # [N] each -> [K]
    """Two-sided p-values of the number of observed rows in each of K segments.

    Args:
        o: 0 or 1.
        q: Null probabilities in (0, 1).
        codes: Segment of each row, in 0..K-1.
        size: K; an empty segment gets 1.
    """
    gap = np.bincount(codes, o - q, minlength=size)
    deviation = np.sqrt(np.bincount(codes, q * (1 - q), minlength=size))
    z = np.divide(gap, deviation, out=np.zeros(size), where=deviation > 0)
    p = np.asarray(2 * norm.sf(np.abs(z)), dtype=np.float64)
    clear = np.flatnonzero(np.abs(z) > CLEAR)
    if len(clear):
        place = np.full(size, -1)
        place[clear] = np.arange(len(clear))
        rows = place[codes] >= 0
        code = place[codes[rows]]
        sign = np.sign(gap[clear])
        tails = sum_tails(sign[code], q[rows], code, np.abs(gap[clear]), lattice=1.0)
        p[clear] = np.minimum(1.0, 2 * tails)
    return p


def weighted_sum_tail(c: Floats, q: Floats, value: float) -> float:  # [N], [N]
    """P(sum of c (o - q) >= value) for independent o ~ Bernoulli(q); 1/2 if all c are 0."""
    unit = float(np.abs(c).max(initial=0.0))
    if unit == 0:
        return 0.5
    c, value = c / unit, value / unit  # squares of coefficients 1 / p stay numbers
    deviation = float(np.sqrt((c * c * q * (1 - q)).sum()))
    if deviation == 0:
        return 0.5
    if value <= CLEAR * deviation:
        return float(norm.sf(value / deviation))
    return float(sum_tails(c, q, np.zeros(len(q), dtype=np.int64), np.array([value]))[0])


def sum_tails(
    c: Floats,  # [N]
    q: Floats,  # [N] in (0, 1)
    codes: Integers,  # [N] in 0..K-1
    value: Floats,  # [K], above 0
    *,
    lattice: float = 0.0,
) -> Floats:  # [K]
    r"""P(S >= value) in each of K segments, S the sum of c (o - q), by saddle points.

    With :math:`K(t) = \sum \log(1 - q + q e^{ct}) - t \sum c q` and :math:`K'(t) = x`, the tail is
    :math:`1 - \Phi(r + \log(v / r) / r)`, where :math:`r = \sqrt{2 (t x - K(t))}` and
    :math:`v = t \sqrt{K''(t)}`. Unlike the normal approximation it allows for the skewness of small
    counts and of coefficients 1 / p. A sum on a lattice of span h takes x = value - h / 2 and
    :math:`v = (2 / h) \sinh(h t / 2) \sqrt{K''(t)}`.

    Source: Lugannani and Rice, Advances in Applied Probability 12 (1980), 475-490; in the form of
    Barndorff-Nielsen, JRSS B 52 (1990), 485-496; on a lattice, Daniels, "Tail probability
    approximations", International Statistical Review 55 (1987), 37-48.
    """
    size = len(value)
    unit = float(np.abs(c).max())
    c, x, h = c / unit, value / unit - lattice / unit / 2, lattice / unit

    def sums(terms: Floats) -> Floats:
        return np.asarray(np.bincount(codes, terms, minlength=size), dtype=np.float64)

    variance, logit = sums(c * c * q * (1 - q)), np.log(q) - np.log1p(-q)
    most = sums(np.where(c > 0, c * (1 - q), -c * q))
    inside = x < most * (1 - 1e-12)
    low, high = np.zeros(size), np.full(size, np.inf)
    t = x / variance
    for _ in range(_STEPS):
        tilted = expit(logit + c * t[codes])
        gap = sums(c * (tilted - q)) - x
        curvature = sums(c * c * tilted * (1 - tilted))
        wrong = inside & (np.abs(gap) > 1e-9 * np.sqrt(variance))
        if not wrong.any():
            break
        low, high = np.where(gap < 0, t, low), np.where(gap < 0, high, t)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = t - gap / curvature
        bisected = np.where(np.isfinite(high), (low + high) / 2, 2 * t)
        step = np.where((step > low) & (step < high), step, bisected)
        t = np.where(wrong, step, t)
    cumulant = sums(np.logaddexp(np.log1p(-q), np.log(q) + c * t[codes]) - t[codes] * c * q)
    r = np.sqrt(np.maximum(2 * (t * x - cumulant), 1e-300))
    v = (2 / h * np.sinh(np.minimum(h * t / 2, 700)) if h else t) * np.sqrt(curvature)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = norm.sf(r + np.log(v / r) / r)
    # at the end of the support every o is what its coefficient asks for
    end = np.exp(sums(np.where(c > 0, np.log(q), np.where(c < 0, np.log1p(-q), 0.0))))
    return np.where(inside & np.isfinite(tail), tail, np.where(inside, 0.0, end))


def holm(p_values: ArrayLike) -> Floats:  # [K] -> [K]
    """Holm's adjusted p-values: rejecting those of at most alpha keeps the family-wise error rate.

    It holds under any dependence. Source: Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6 (1979), 65-70.

    >>> holm([0.03, 0.01, 0.04]).tolist()
    [0.06, 0.03, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
