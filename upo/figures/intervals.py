"""The little statistics behind the pictures, safe for missing values and empty bins."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def as_floats(name: str, values: ArrayLike, *dims: int) -> Array:
    """``values`` in float64.

    Raises:
        ValueError: If the number of dimensions is none of ``dims``.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in dims:
        wanted = " or ".join(str(dim) for dim in dims)
        raise ValueError(f"{name} needs {wanted} dimensions, got shape {array.shape}.")
    return array


def finite_mean_sd(values: Array, axis: int) -> tuple[Array, Array]:
    """Mean and standard deviation (n - 1) of the finite values; NaN for none, sd 0 for one.

    >>> mean, sd = finite_mean_sd(np.array([[1.0, 3.0], [2.0, np.nan]]), axis=1)
    >>> mean.tolist(), sd.round(3).tolist()
    ([2.0, 2.0], [1.414, 0.0])
    """
    finite = np.isfinite(values)
    count = finite.sum(axis, keepdims=True)
    mean = np.where(finite, values, 0.0).sum(axis, keepdims=True) / np.maximum(count, 1)
    square = np.where(finite, values - mean, 0.0) ** 2
    sd = np.sqrt(square.sum(axis, keepdims=True) / np.maximum(count - 1, 1))
    none = count == 0
    return (
        np.where(none, np.nan, mean).squeeze(axis),
        np.where(none, np.nan, sd).squeeze(axis),
    )


def pooled(mean: Array, count: Array) -> Array:
    """Means ``[R, M]`` over replicas, each weighted by its ``count``; NaN where all are empty."""
    weight = np.where(np.isfinite(mean), count, 0.0)
    total = weight.sum(0)
    value = (np.where(weight > 0, mean, 0.0) * weight).sum(0)
    return np.where(total > 0, value / np.where(total > 0, total, 1.0), np.nan)


def wilson(rate: Array, count: Array, z: float = 1.96) -> tuple[Array, Array]:
    """Wilson's interval of a binomial ``rate`` seen in ``count`` draws; NaN for an empty bin.

    Source: E. B. Wilson, JASA 22 (1927) 209-212.

    >>> low, high = wilson(np.array([0.0, 0.5]), np.array([10.0, 10.0]))
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.0, 0.2366], [0.2775, 0.7634])
    """
    n = np.where(count > 0, count, np.nan)
    rate = np.clip(rate, 0.0, 1.0)  # a float32 mean may pass 1 by its rounding
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def plus_minus(values: ArrayLike, spec: str) -> str:
    """A number, or mean ± sd over replicas, as text.

    >>> plus_minus(0.0123, ".3f"), plus_minus([1.0, 3.0], ".1f"), plus_minus([np.nan], ".1f")
    ('0.012', '2.0 ± 1.4', 'n/a')
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    mean, sd = finite_mean_sd(array, axis=0)
    if np.isnan(mean):
        return "n/a"
    return f"{mean:{spec}} ± {sd:{spec}}" if np.isfinite(array).sum() > 1 else f"{mean:{spec}}"


def cell_edges(centres: Array) -> Array:
    """Edges ``[T + 1]`` of cells around increasing ``centres [T]``, halfway between neighbours.

    >>> cell_edges(np.array([0.0, 2.0, 6.0])).tolist()
    [-1.0, 1.0, 4.0, 8.0]
    """
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
