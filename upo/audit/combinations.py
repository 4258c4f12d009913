"""The adversary over combinations of users and items: a direction of low rank."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from upo.audit.pairs import AuditPairs

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RANK = 16  # triplets, of which the last is taken for noise
ROUNDS = 30  # of subspace iteration; a weak direction is close to the noise and comes out slowly
ADDITIVE = 8  # rounds that fit what is additive
BLOCK = 2**15  # pairs of a step
LARGE = 0.99  # quantile of |w| that is about where the bound sets in


def combinations(pairs: AuditPairs, rows: NDArray[np.bool_], seed: int) -> Floats:  # [N]
    r"""The direction w in [-1, 1] that residuals of low rank take, less terms of user and item.

    With :math:`g = a (o - q)`, of null variance v, less the :math:`v (\alpha_u + \beta_i)` that fit
    it best, and :math:`V_u, V_i` the sums of v,

    .. math:: M_{ui} = \frac{g_{ui}}{\sqrt{(V_u + \bar V_u) (V_i + \bar V_i)}}
        \approx \sum_k s_k x_{uk} y_{ik}, \qquad
        w_{ui} \propto \sum_k \frac{(s_k - s_K)^2 x_{uk} y_{ik}}
        {\sqrt{(V_u + \bar V_u) (V_i + \bar V_i)}},

    bounded by tanh. Where v is a product, a direction of rank one that has the largest gain in null
    standard deviations is the first triplet. The means added to the V keep users of few rows from
    being triplets of their own; :math:`s_K` stands for the noise. No array of users x items is
    made.

    Source: Qin and Rohe, "Regularized spectral clustering under the degree-corrected stochastic
    blockmodel", NeurIPS 2013, arXiv:1309.4111 (the means). Differs: the residual of given
    probabilities, the null variances for degrees, and the weights of the triplets.

    Args:
        pairs: Under audit.
        rows: ``[N]``, those whose o may be read.
        seed: Of the first subspace.
    """
    users, items = pairs.users[rows], pairs.items[rows]
    variance = (pairs.scale**2 * pairs.variance)[rows]
    by_user = _sums(users, variance, len(pairs.user_ids))
    by_item = _sums(items, variance, len(pairs.item_ids))
    by_user, by_item = (1 / (sums + sums.mean()) for sums in (by_user, by_item))
    left = (pairs.scale * (pairs.observed - pairs.q))[rows]
    left -= variance * _additive(left, variance, users, items, by_user, by_item)
    of_user, of_item = np.sqrt(by_user), np.sqrt(by_item)
    values = left * of_user[users] * of_item[items]
    matrix = csr_array((values, (users, items)), shape=(len(of_user), len(of_item)))
    x, size, y = _triplets(matrix, np.random.default_rng(seed))
    noise = size.min() if len(size) == RANK else 0.0
    x, y = of_user[:, None] * x * (size - noise) ** 2, of_item[:, None] * y
    w = np.empty(len(pairs))
    for start in range(0, len(pairs), BLOCK):
        at = slice(start, start + BLOCK)
        w[at] = (x[pairs.users[at]] * y[pairs.items[at]]).sum(axis=1)
    return np.asarray(np.tanh(w / max(np.quantile(np.abs(w), LARGE), 1e-300)), dtype=np.float64)


def _additive(
    left: Floats,
    variance: Floats,
    users: Integers,
    items: Integers,
    of_user: Floats,
    of_item: Floats,
) -> Floats:  # [B]
    """The terms of user and item, with a ridge, that fit the residuals best, round by round."""
    item = np.zeros(len(of_item))
    for _ in range(ADDITIVE):
        user = of_user * _sums(users, left - variance * item[items], len(of_user))
        item = of_item * _sums(items, left - variance * user[users], len(of_item))
    return np.asarray(user[users] + item[items], dtype=np.float64)


def _triplets(
    matrix: csr_array, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:  # [U, K], [K], [I, K]
    """Singular vectors and the values between them, by subspace iteration; K is at most RANK."""
    if matrix.shape[0] < matrix.shape[1]:  # the basis that is made orthogonal is the small one
        y, size, x = _triplets(matrix.T.tocsr(), rng)
        return x, size, y
    turned = matrix.T.tocsr()
    basis = np.linalg.qr(rng.normal(size=(matrix.shape[1], RANK)))[0]
    for _ in range(ROUNDS):
        basis = np.linalg.qr(turned @ (matrix @ basis))[0]
    image = matrix @ basis
    square, turn = np.linalg.eigh(image.T @ image)
    size = np.sqrt(np.maximum(square, 0.0))
    return image @ turn / np.maximum(size, 1e-300), size, basis @ turn


def _sums(index: Integers, values: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(index, values, minlength=size), dtype=np.float64)
