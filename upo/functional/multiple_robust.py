r"""Multiple robustness: weights that balance several propensities and imputed errors at once.

With :math:`u=(1,1/\hat p_1..1/\hat p_J,\hat e_1..\hat e_K)`, regressing e on u over O and averaging
the fit over D gives :math:`E_{MR}=\frac1{|D|}\sum_D u^\top\eta`. As :math:`\eta` is linear in e,
this is :math:`\mathrm{mean}_O\,\omega e` with weights that no longer contain e.

Source: Li, Dai, Li, Lyu, Dong, Zhou, Wu, "Multiple robust learning for recommendation", AAAI 2023.
"""

import torch
from torch import Tensor

from upo.core.distributed import (
    batch_mean,
    batch_sum,
    gather_rows,
    sum_across_ranks,
    world_size,
)
from upo.functional.tilting import LARGEST, RIDGE, tilt

RCOND = 1e-10  # of the largest singular value; directions below it are rounding


def triangle(u: Tensor) -> Tensor:  # [R, C, B] -> [R, C, C]
    r"""Upper triangle T with :math:`T^\top T=\sum uu^\top`, over the rows of all ranks.

    By orthogonal factors, which keep the digits that the sum of squares itself would lose. Entries
    are of any sign.

    Source: Demmel et al., "Communication-optimal parallel QR", SIAM J. Sci. Comput. 34(1), 2012.
    """
    found: Tensor = torch.linalg.qr(_padded(u.transpose(-1, -2)), mode="r")[1]
    if world_size() > 1:
        every = gather_rows(found.transpose(-1, -2).contiguous()).transpose(-1, -2)
        found = torch.linalg.qr(every, mode="r")[1]
    return found


def _padded(rows: Tensor) -> Tensor:  # [R, B, C] -> [R, max(B, C), C]
    """At least as many rows as columns; those of zeros change nothing."""
    missing = rows.shape[-1] - rows.shape[-2]
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def balancing_coefficients(
    u: Tensor,  # [R, C, B] of rows of O
    mean: Tensor,  # [R, C] mean of u over D
    ridge: float = 0.0,
) -> Tensor:  # [R, C]
    r"""Coefficients c of the weights :math:`\omega=u^\top c`, by singular values.

    .. math:: c=(U^\top U/n)^{+}\,\mathrm{mean}_D u

    so that :math:`\mathrm{mean}_O\,\omega u=\mathrm{mean}_D u` exactly, if the right side lies in
    the span of the rows of O; else its projection on that span, with the least coefficients: a
    doubled column changes no weight, and one of zeros has the coefficient 0. Columns are read in
    units of their root mean square, since 1/p and e differ by orders of magnitude.

    A ridge :math:`\lambda` is relative to those units; the balance then misses by
    :math:`\lambda c` in them.

    Source: after Li et al., AAAI 2023. Differs: solved for the weights, which do not contain e.

    Args:
        u: Columns of the rows of O: this rank's slice of them.
        mean: Over D, of all ranks.
        ridge: At least 0.
    """
    n, scale = _units(u)
    upper = triangle(u * scale[..., None]) / n[..., None, None].sqrt()
    _, singular, right = torch.linalg.svd(upper)
    squares = singular.square()
    there = singular > RCOND * singular[..., :1]
    inverse = torch.where(there, 1.0 / (squares + ridge).clamp(min=1e-300), 0.0)
    along = (right @ (scale * mean).unsqueeze(-1)).squeeze(-1) * inverse
    solution: Tensor = (right.transpose(-1, -2) @ along.unsqueeze(-1)).squeeze(-1)
    return solution * scale


def _units(u: Tensor) -> tuple[Tensor, Tensor]:  # [R, C, B] -> [R], [R, C]
    """Rows of all ranks, and what brings each column to a mean square of 1 (0 for zeros)."""
    n = batch_sum(torch.ones_like(u[..., 0, :])).clamp(min=1.0)
    power = batch_sum(u.square()) / n[..., None]
    return n, torch.where(power > 0, power.clamp(min=torch.finfo(u.dtype).tiny).rsqrt(), 0.0)


def positive_weights(
    u: Tensor, mean: Tensor, ridge: float = 0.0
) -> Tensor:  # [R, C, B], [R, C] -> [R, B]
    r"""Weights above 0 with :math:`\mathrm{mean}_O\,\omega u=\mathrm{mean}_D u`, as even as can be.

    They minimise :math:`\sum\omega\log\omega`, so :math:`\omega=e^{-s^\top u}`, and exist if the
    right side lies inside the hull of the rows of O; otherwise, and with a ridge as that of
    :func:`balancing_coefficients`, the balance misses.

    Source: Hainmueller, "Entropy balancing", Political Analysis 20(1), 2012. For MR: this project's
    fallback, where weights by least squares are negative and reward large errors.
    """
    n, scale = _units(u)
    scaled = (u * scale[..., None]).transpose(-1, -2)  # [R, B, C]
    target = n[..., None] * scale * mean + sum_across_ranks(scaled.sum(1))
    s = tilt(torch.zeros_like(u[..., 0, :]), scaled, target, ridge=max(ridge, RIDGE))
    return (-(scaled * s.unsqueeze(1)).sum(-1)).clamp(max=LARGEST).exp()


def balancing_weights(u: Tensor, coefficients: Tensor) -> Tensor:  # [R, C, B], [R, C] -> [R, B]
    r"""Weights :math:`\omega=u^\top c` of observed pairs; they may be negative.

    Source: after Li et al., AAAI 2023, as :func:`balancing_coefficients`.

    >>> balancing_weights(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([2.0, -1.0]))
    tensor([2., 3.])
    """
    return (u * coefficients.unsqueeze(-1)).sum(-2)


def multiple_robust_loss(e_o: Tensor, omega: Tensor) -> Tensor:  # [R, B] x 2 -> [R]
    r""":math:`\mathrm{mean}_O\,\omega e`; no gradient is meant to flow into the weights.

    May be negative, where weights are.

    Source: Li et al., AAAI 2023, the estimator :math:`E_{MR}` written with weights.
    """
    return batch_mean(omega * e_o)
