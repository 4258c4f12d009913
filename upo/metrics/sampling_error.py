r"""Standard errors of the four diagnostics where D is sampled in strata instead of visited.

Each diagnostic is a function of the mean over D of a row vector x with K entries: what calibration
gap a pair adds to its bin, how it unbalances the features, its terms of the bias or the variance.
A stratum of N_h pairs, of which n_h were drawn uniformly without repetition, adds

.. math:: (N_h / |D|)^2 (1 - n_h / N_h) S_h / n_h

to the covariance of the estimated mean, S_h being the covariance of x within it; a stratum that is
visited whole adds nothing. The delta method carries this covariance over to the diagnostic.

Source: Cochran, Sampling Techniques, 3rd ed. 1977, theorem 5.3 and eq. (2.20).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Stratum(NamedTuple):
    """What is kept of the rows drawn from one stratum; those of several blocks are merged."""

    rows: int  # n_h, drawn
    mean: Tensor  # [..., K] float64
    scatter: Tensor  # [..., K, K] float64, sum of (x - mean)(x - mean)^T


def stratum(x: Tensor) -> Stratum:  # [..., N, K]
    """A block of rows, of which there may be none.

    Raises:
        ValueError: If ``x`` has fewer than two axes.
    """
    if x.ndim < 2:
        raise ValueError(f"A stratum needs rows [..., N, K], got {tuple(x.shape)}.")
    x = x.detach().double()
    mean = x.sum(-2) / max(1, x.shape[-2])
    centred = x - mean.unsqueeze(-2)
    return Stratum(x.shape[-2], mean, centred.mT @ centred)


def merged(a: Stratum, b: Stratum) -> Stratum:
    """The rows of both blocks (Chan, Golub, LeVeque 1983)."""
    rows = a.rows + b.rows
    if not rows:
        return a
    gap = b.mean - a.mean
    outer = gap.unsqueeze(-1) * gap.unsqueeze(-2)
    return Stratum(
        rows,
        a.mean + gap * (b.rows / rows),
        a.scatter + b.scatter + outer * (a.rows * b.rows / rows),
    )


def estimated_mean(strata: Sequence[tuple[Stratum, int]]) -> Tensor:  # [..., K]
    """The mean of x over D from strata, each with its number of pairs N_h."""
    whole = sum(size for _, size in strata)
    return torch.stack([s.mean * (size / whole) for s, size in strata]).sum(0)


def covariance(strata: Sequence[tuple[Stratum, int]]) -> Tensor:  # [..., K, K]
    """Covariance of :func:`estimated_mean` over draws of the samples.

    Raises:
        ValueError: If more rows than pairs were drawn, or fewer than two of a larger stratum,
            whose variance cannot be told.
    """
    whole = sum(size for _, size in strata)
    total = torch.zeros_like(strata[0][0].scatter)
    for s, size in strata:
        if s.rows > size or s.rows < min(2, size):
            raise ValueError(f"A stratum of {size} pairs cannot be judged by {s.rows} rows.")
        if s.rows < size:
            spread = s.scatter / (s.rows - 1)
            total = total + spread * ((size / whole) ** 2 * (1 - s.rows / size) / s.rows)
    return total


def ece_error(mean: Tensor, cov: Tensor) -> Tensor:  # [..., M], [..., M, M] -> [...]
    """Standard error of the ECE; entry m of x is o - p_hat where the pair lies in bin m, else 0.

    Too large rather than too small where gaps are smaller than their noise: the absolute value is
    taken as linear. Bins are taken as fixed.
    """
    sign = mean.sign().unsqueeze(-1)
    return (sign.mT @ cov @ sign)[..., 0, 0].clamp(min=0).sqrt()


def bmse_error(mean: Tensor, cov: Tensor) -> Tensor:  # [..., d], [..., d, d] -> [...]
    """Standard error of the BMSE; x is the balancing weight times the features.

    The squared norm of a normal mean has variance 4 m^T C m + 2 tr(C C); the second part counts
    where the features are balanced.
    """
    m = mean.unsqueeze(-1)
    first = (m.mT @ cov @ m)[..., 0, 0]
    return (4 * first + 2 * cov.square().sum((-2, -1))).clamp(min=0).sqrt()


def bias_error(cov: Tensor) -> Tensor:  # [..., 1, 1] -> [...]
    """Standard error of the DR bias; x is a term of the bias."""
    return cov[..., 0, 0].clamp(min=0).sqrt()


def variance_error(cov: Tensor, n_pairs: int) -> Tensor:  # [..., 1, 1] -> [...]
    """Standard error of the DR variance; x is a term of the variance, whose mean is over |D|^2."""
    return bias_error(cov) / n_pairs
