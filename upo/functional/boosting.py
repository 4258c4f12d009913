"""Gradient boosting of a logit over features, by symmetric trees that a few tensors hold."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS, RATE, DEPTH = 60, 0.15, 3
CUTS = 31  # thresholds of a feature, at its quantiles
LEAST_HESSIAN = 30.0  # sum of w p (1 - p) in a leaf: its step is known to 18 %
PRIOR = 1.0  # added to it: an L2 penalty on the step


class Forest(NamedTuple):
    """Trees that ask one question at each level; a leaf's number has an answer in each bit.

    Attributes:
        feature: ``[T, depth]`` column asked about.
        cut: ``[T, depth]`` answered yes above it.
        leaf: ``[T, 2^depth]`` what is added to the logit.
    """

    feature: NDArray[np.int64]
    cut: Floats
    leaf: Floats

    def __call__(self, x: Floats) -> Floats:  # [N, F] -> [N]
        """What all trees together add."""
        total = np.zeros(len(x))
        for feature, cut, leaf in zip(*self, strict=True):
            total += leaf[_leaves(x[:, feature] > cut)]
        return total


def boosted(x: Floats, z: Floats, o: Floats, w: Floats) -> Forest:
    r"""Trees that lower the cross-entropy of o, added to logits that they start from.

    Each tree takes the questions that gain most, level by level, by
    :math:`\sum_{leaves} G^2 / (H + 1)` with G the sum of :math:`w (o - p)` and H that of
    :math:`w p (1 - p)`, and adds .15 of Newton's step :math:`G / (H + 1)` in each leaf; a leaf with
    H below 30 adds nothing and gains nothing. Boosting ends where no question gains.

    Source: Friedman, Annals of Statistics 2001; Prokhorenkova et al., "CatBoost", NeurIPS 2018
    (symmetric trees); Tax et al., "MCGrad", 2025 (boosting for multicalibration).

    Args:
        x: ``[N, F]`` features.
        z: ``[N]`` logits to start from.
        o: ``[N]`` 0 or 1.
        w: ``[N]`` weights above 0.
    """
    cuts = [np.unique(np.quantile(column, np.arange(1, CUTS + 1) / (CUTS + 1))) for column in x.T]
    cuts = [c[c < column.max()] for c, column in zip(cuts, x.T, strict=True)]
    codes = np.column_stack(
        [np.searchsorted(c, column) for c, column in zip(cuts, x.T, strict=True)]
    ).astype(np.int64)
    trees = []
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-z))
        g, h = w * (o - p), w * p * (1 - p)
        asked, below = _questions(codes, [len(c) for c in cuts], g, h)
        if not asked:
            break
        number = _leaves(codes[:, asked] > below)
        sums, mass = (np.bincount(number, values, minlength=2**DEPTH) for values in (g, h))
        step = np.where(mass < LEAST_HESSIAN, 0.0, RATE * sums / (mass + PRIOR))
        z = z + step[number]
        trees.append((asked, [cuts[f][c] for f, c in zip(asked, below, strict=True)], step))
    return Forest(
        np.array([asked for asked, _, _ in trees], dtype=np.int64).reshape(-1, DEPTH),
        np.array([cut for _, cut, _ in trees], dtype=np.float64).reshape(-1, DEPTH),
        np.array([step for _, _, step in trees], dtype=np.float64).reshape(-1, 2**DEPTH),
    )


def _leaves(answers: NDArray[np.bool_]) -> NDArray[np.int64]:  # [N, depth] -> [N]
    return np.asarray(answers @ (1 << np.arange(answers.shape[1])), dtype=np.int64)


def _questions(
    codes: NDArray[np.int64], sizes: list[int], g: Floats, h: Floats
) -> tuple[list[int], list[int]]:
    """The features and the cuts of a tree's questions; none where none gains.

    The last question is repeated where no further one gains.
    """
    feature: list[int] = []
    place: list[int] = []
    leaf = np.zeros(len(g), dtype=np.int64)
    for level in range(DEPTH):
        best = (1e-9, -1, -1)
        for f, size in enumerate(sizes):
            if size:
                best = max(
                    best, (*_best_cut(leaf * (size + 1) + codes[:, f], size, level, g, h), f)
                )
        _, cut, found = best
        if found < 0:
            break
        feature.append(found)
        place.append(cut)
        leaf = leaf + ((codes[:, found] > cut) << level)
    lacking = DEPTH - len(feature) if feature else 0
    return feature + feature[-1:] * lacking, place + place[-1:] * lacking


def _best_cut(
    index: NDArray[np.int64], size: int, level: int, g: Floats, h: Floats
) -> tuple[float, int]:
    """The largest gain that a cut of one feature has over all leaves so far, and the cut."""
    shape = (2**level, size + 1)
    sums, mass = (
        np.bincount(index, values, minlength=shape[0] * shape[1]).reshape(shape).cumsum(1)
        for values in (g, h)
    )
    total, all_ = sums[:, -1:], mass[:, -1:]
    low, high = mass[:, :-1], all_ - mass[:, :-1]
    gain = (
        sums[:, :-1] ** 2 / (low + PRIOR)
        + (total - sums[:, :-1]) ** 2 / (high + PRIOR)
        - total**2 / (all_ + PRIOR)
    )
    thin = ((low < LEAST_HESSIAN) & (low > 0)) | ((high < LEAST_HESSIAN) & (high > 1e-9))
    score = np.where(thin, 0.0, gain).sum(0)
    cut = int(score.argmax())
    return float(score[cut]), cut
