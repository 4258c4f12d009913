r"""Learned propensities: weights that balance users and items, and what that does to an interval.

A learned propensity is wrong in two ways. It is noisy, and the inverse of a noisy p is too large on
average; and whatever learns many terms shrinks them, so that part of what it should take away stays
in the estimate, half a standard error or more in logs of some thousand rows. Both are errors of
the terms of users and items, which D tells: its inverse weights have to add up to the number of
pairs of each user and of each item. So weights :math:`1/q` become

.. math:: w_{ui} = 1 + (1/q_{ui} - 1)\, e^{\kappa + a_u + b_i}, \qquad
    \sum_{O_u} w = |D_u|,\ \sum_{O_i} w = |D_i|,\ \sum_O w = |D|,

which is a shift of logits, as far as a prior of a and b allows (below); the last holds exactly.

**Intervals.** Of these weights, :math:`\sum_O w d` with deviations d is :math:`\sum_O w (d -
x^\top\gamma)` and a constant, to the first order, with the indicators x of user, item and 1 and

.. math:: \gamma = \arg\min \sum_O (w - 1)(d - x^\top\gamma)^2.

By these normal equations an error of q in the terms of user and item does not change it: whatever
the propensities were learned from and however they were shrunk, all that is left is the draw of the
evaluated rows, with variance :math:`\sum_O w (w - 1)(d - x^\top\gamma)^2`. Each square is divided
by one minus the row's leverage to the power 3/2, since :math:`\gamma` follows the rows: a power of
1 (HC2) left intervals of losses 7 % too narrow, one of 2 (HC3) 12 % too wide. Where users and items
explain d it is *less* than with known propensities, which do not balance the log as it was drawn.

**Prior.** Of variance 1/4 for each a and b: in a user's equation, whose terms :math:`w - 1` have
the noise of weights, it has the precision :math:`\rho = 4 \sum_O w (w-1) / \sum_O (w-1)`. A wider
one takes more of the error out and leaves more noise of weights: of variance 1, some seven held-out
rows a user were too few for it.

Sources: Deville, Särndal, "Calibration estimators in survey sampling", JASA 1992 (weights of given
margins, their residual variance); Imai, Ratkovic, "Covariate balancing propensity score", JRSS B
2014; MacKinnon, White, Journal of Econometrics 1985 (HC2, HC3). The prior and the power are our
own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from upo.counterfactual.estimates import Values

Index = np.ndarray[Any, np.dtype[np.int64]]
PRIOR = 4.0  # precision of a term: learned propensities are off by half a logit
LEAST = 0.2  # of one minus a leverage
POWER = 1.5  # of it, that divides a squared residual
ROUNDS = 200
CLOSE = 1e-8  # largest move of a term at which the rounds end


class Balance:
    """Weights of the evaluated rows that agree with D, user by user and item by item.

    Args:
        q: ``[n]`` learned propensities of the rows, in (0, 1].
        sides: ``[n]`` users and ``[n]`` items of the rows, by number.
        whole: ``[N]`` users and items of all pairs of D, by the same numbers; the rows are among
            them.

    Attributes:
        q: ``[n]`` propensities in (0, 1] whose inverses are the weights.
    """

    def __init__(self, q: Values, sides: tuple[Index, Index], whole: tuple[Index, Index]) -> None:
        self._sides = sides
        self._sizes = [1 + int(x.max()) for x in whole]
        self._odds = 1 / q - 1
        self._prior = PRIOR
        self.q = q
        rest = len(whole[0]) - len(q)  # what the odds add up to
        if rest <= 0 or not self._odds.sum():
            return
        self._odds *= rest / self._odds.sum()
        self._prior *= float(((1 + self._odds) * self._odds).sum() / self._odds.sum())
        missing = [
            (np.bincount(all_, minlength=n) - np.bincount(mine, minlength=n)).astype(np.float64)
            for all_, mine, n in zip(whole, sides, self._sizes, strict=True)
        ]
        self._rake(missing, rest)
        self.q = 1 / (1 + self._odds)

    def _rake(self, missing: list[Values], rest: int) -> None:
        """One side after the other, until both agree with D."""
        terms = [np.zeros(n) for n in self._sizes]
        for _ in range(ROUNDS):
            moved = 0.0
            for side, (mine, n) in enumerate(zip(self._sides, self._sizes, strict=True)):
                held = np.bincount(mine, self._odds, n).astype(np.float64)
                total = held * np.exp(-terms[side])
                found = np.where(total > 0, _term(total, missing[side], self._prior), 0.0)
                moved = max(moved, float(np.abs(found - terms[side]).max()))
                self._odds *= np.exp(found - terms[side])[mine]
                terms[side] = found
            self._odds *= rest / self._odds.sum()
            if moved < CLOSE:
                break

    def ratio(self, deviation: Values) -> float:
        """Variance of an estimate with these weights over that with known propensities.

        Args:
            deviation: ``[n]`` v d of each row, 0 where it does not count.
        """
        odds, w = self._odds, 1 + self._odds
        known = float((odds * w * deviation**2).sum())
        if not known:
            return 1.0
        middle = (odds * deviation).sum() / odds.sum()
        centred = deviation - middle
        x = self._design()
        diagonal = x.T @ odds + self._prior
        system = x.T @ diags_array(odds) @ x + diags_array(np.full(len(diagonal), self._prior))
        gamma, _ = cg(
            system, x.T @ (odds * centred), M=diags_array(1 / diagonal), rtol=1e-6, maxiter=500
        )
        # of an additive table, but for terms of higher order in 1 / n
        leverage = odds * (x @ (1 / diagonal) - 1 / (odds.sum() + self._prior))
        left = (1 - leverage).clip(min=LEAST)
        return float((odds * w * (centred - x @ gamma) ** 2 / left**POWER).sum()) / known

    def _design(self) -> Any:
        """``[n, users + items]`` with a 1 in the user's and in the item's column."""
        n = len(self._odds)
        columns = np.stack([self._sides[0], self._sizes[0] + self._sides[1]], axis=1).ravel()
        shape = (n, sum(self._sizes))
        return csr_array((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), shape=shape)


def _term(total: Values, missing: Values, prior: float) -> Values:
    """Where ``total * exp(a) + prior * a = missing``, by Newton steps from above the root."""
    a = np.maximum(np.log(np.maximum(missing, prior) / total.clip(min=1e-300)), 0.0)
    for _ in range(50):
        grown = total * np.exp(a)
        step = (grown + prior * a - missing) / (grown + prior)
        a -= step
        if np.abs(step).max() < CLOSE / 10:
            break
    return np.asarray(a)
