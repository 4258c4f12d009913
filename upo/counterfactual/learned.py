r"""What it does to an interval that its propensities were learned.

Intervals for known propensities take the sum over the log of :math:`w d`, with deviations d, as a
sum of independent terms. Learned ones add an error, of which the first order is that of an additive
logit :math:`\operatorname{logit} p = x^\top\beta` with a term for each user and each item, fitted
by maximum likelihood: every propensity of this package has these terms, and they hold most of what
is uncertain. With the information :math:`G = \sum_D p(1-p) x x^\top`, estimated by
:math:`\sum (1-p) x x^\top` over the rows that were learned from (plus a prior of variance 1 for
each term), and with :math:`g = \sum_O s\,t\,x`, where t is the row's term of the estimate and
:math:`s = -\partial \log w / \partial \operatorname{logit} p`, the error of the estimate is
:math:`-g^\top G^{-1} \sum_D (o - p) x`.

- Learned from the indicators that are evaluated: the two errors are of the same draws, and the
  variance is that of the rest, :math:`\sum_O (1-q) (t - x^\top\gamma)^2` with
  :math:`\gamma = G^{-1} g`: *less* than with known propensities, as learned ones balance the log.
  Each square is divided by one minus the row's leverage (HC2), since :math:`\gamma` follows the
  rows. Where part of the log was trained on, its share of the error of :math:`\beta`,
  :math:`\sum_D p_t (1-p_t) (1-q)^2 (x^\top\gamma)^2`, is a draw of its own and is added.
- Learned from the training rows alone: the errors are independent and
  :math:`g^\top G^{-1} g` is added, less what the noise of g adds to it.

Learned propensities are noisy, and 1 / p of a noisy p is too large on average. So inverse weights
are first made to add up to D: :math:`w = 1 + \kappa (1/q - 1)` with the :math:`\kappa` at which
:math:`\sum_O w = |D|`, a shift of all logits; :math:`t = (v d - \mu) w` with
:math:`\mu = \sum_O v d (w - 1) / \sum_O (w - 1)` is a row's term with :math:`\kappa` estimated.

Sources: Lunceford, Davidian, "Stratification and weighting via the propensity score", Statistics
in Medicine 2004 (weights by a fitted logit: the projection and its variance); MacKinnon, White,
Journal of Econometrics 1985 (HC2). The two ways of splitting a log are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from upo.counterfactual.estimates import Values

Index = np.ndarray[Any, np.dtype[np.int64]]
PRIOR = 1.0  # precision of each user's and each item's term
LEAST = 0.1  # of one minus a leverage


@dataclass(frozen=True, eq=False)
class Learned:
    """The rows that propensities were learned from.

    Attributes:
        users: ``[M]`` users by number.
        items: ``[M]`` items by number.
        p: ``[M]`` learned probability of each to be such a row.
        included: Whether the rows that are evaluated are among them.
        share: Share of the log that is evaluated, 1 for all of it.
    """

    users: Index
    items: Index
    p: Values
    included: bool
    share: float = 1.0


def balanced(q: Values, size: float) -> Values:
    """Propensities whose inverses add up to D, by one shift of their logits.

    Args:
        q: ``[n]`` in (0, 1].
        size: Pairs of D, more than n for there to be anything to shift.
    """
    odds = 1 / q - 1
    if size <= len(q) or not odds.sum():
        return q
    return np.asarray(1 / (1 + (size - len(q)) / odds.sum() * odds))


class LearnedError:
    """The error of learned propensities at the rows that are evaluated.

    Args:
        learned: What they were learned from.
        users: ``[n]`` users of the evaluated rows, by the same numbers.
        items: ``[n]`` items.
        q: ``[n]`` their propensities, as they divide.
    """

    def __init__(self, learned: Learned, users: Index, items: Index, q: Values) -> None:
        self.learned, self.q = learned, q
        sizes = [1 + int(max(a.max(), b.max())) for a, b in self._sides(users, items)]
        self._seen = _design(users, items, sizes)
        self._source = _design(learned.users, learned.items, sizes)
        self._weight = 1 - learned.p
        self._information = self._source.T @ diags_array(self._weight) @ self._source
        self._diagonal = self._information.diagonal() + PRIOR
        # of an additive table, but for terms of higher order in 1 / n
        self._leverage = self._seen @ (1 / self._diagonal) - 1 / (self._weight.sum() + PRIOR)

    def _sides(self, users: Index, items: Index) -> list[tuple[Index, Index]]:
        return [(users, self.learned.users), (items, self.learned.items)]

    def ratio(self, deviation: Values) -> float:
        """Variance of an estimate with learned propensities over that with known ones.

        Args:
            deviation: ``[n]`` v d of each evaluated row, 0 where it does not count.
        """
        q = self.q
        w = 1 / q
        known = float(((1 - q) * (deviation * w) ** 2).sum())
        if not known:
            return 1.0
        term = (deviation - (deviation * (w - 1)).sum() / (w - 1).sum()) * w
        found = self._within(term) if self.learned.included else self._beside(term)
        return found / known

    def _within(self, term: Values) -> float:
        rest = 1 - self.q
        gamma = self._solve(self._seen.T @ (rest * term))
        left = (1 - self._leverage * rest).clip(min=LEAST)
        found = float((rest * (term - self._seen @ gamma) ** 2 / left).sum())
        kept = 1 - self.learned.share
        if kept:
            p = self.learned.p
            unseen = (1 - p) / (1 - kept * p)  # 1 - q of every row of the log
            drawn = kept * (1 - kept * p) * unseen**2
            found += float((drawn * (self._source @ gamma) ** 2).sum())
        return found

    def _beside(self, term: Values) -> float:
        gamma = self._solve(self._seen.T @ term)
        error = float((self._weight * (self._source @ gamma) ** 2).sum())
        noise = float((term**2 * self._leverage).sum())
        return float(((1 - self.q) * term**2).sum()) + max(error - noise, 0.0)

    def _solve(self, right: Values) -> Values:
        system = self._information + diags_array(np.full(len(right), PRIOR))
        found, _ = cg(system, right, M=diags_array(1 / self._diagonal), rtol=1e-6, maxiter=500)
        return np.asarray(found)


def _design(users: Index, items: Index, sizes: list[int]) -> Any:
    """``[n, users + items]`` with a 1 in the user's and in the item's column."""
    n = len(users)
    columns = np.stack([users, sizes[0] + items], axis=1).ravel()
    return csr_array((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), shape=(n, sum(sizes)))
