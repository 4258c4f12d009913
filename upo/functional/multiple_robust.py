r"""Multiple robustness: weights that balance several propensities and imputed errors at once.

With :math:`u=(1/\hat p_1..1/\hat p_J,\hat e_1..\hat e_K)`, regressing e on u over O and averaging
the fit over D gives :math:`E_{MR}=\frac1{|D|}\sum_D u^\top\eta`. As :math:`\eta` is linear in e,
this is :math:`\mathrm{mean}_O\,\omega e` with weights that no longer contain e.

Source: Li, Dai, Li, Lyu, Dong, Zhou, Wu, "Multiple robust learning for recommendation", AAAI 2023.
"""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean, batch_sum, sum_across_ranks

LEAST_RIDGE = 1e-10  # keeps collinear columns solvable; far below the rounding of float32 columns


def gram_matrix(u: Tensor) -> Tensor:  # [R, C, B] -> [R, C, C]
    r"""Mean of :math:`uu^\top` over the global batch; eigenvalues are at least 0. NaN of none.

    Source: Li et al., AAAI 2023, the normal equations of the regression.
    """
    count = batch_sum(torch.ones_like(u[..., 0, :]))
    return sum_across_ranks(u @ u.transpose(-1, -2)) / count[..., None, None]


def balancing_coefficients(
    gram: Tensor,  # [R, C, C] mean of u u' over O
    mean: Tensor,  # [R, C] mean of u over D
    ridge: float,
) -> Tensor:  # [R, C]
    r"""Coefficients c of the weights :math:`\omega=u^\top c`.

    .. math:: c=(G+\lambda\,\mathrm{diag}\,G)^{-1}\,\mathrm{mean}_D u,
        \quad G=\mathrm{mean}_O uu^\top

    Without ridge, :math:`\mathrm{mean}_O\,\omega u=\mathrm{mean}_D u` exactly. The ridge is
    relative to each column's own power, since 1/p and e differ by orders of magnitude; a column of
    zeros gets the coefficient 0. A ridge is at least 0; the least one taken is ``LEAST_RIDGE``.

    Source: after Li et al., AAAI 2023. Differs: solved for the weights, which do not contain e; the
    stabilisation of the paper's algorithm is replaced by the ridge.
    """
    power = torch.diagonal(gram, dim1=-2, dim2=-1)
    scale = torch.where(power > 0, power.clamp(min=torch.finfo(gram.dtype).tiny).rsqrt(), 0.0)
    scaled = gram * scale[..., :, None] * scale[..., None, :]
    ones = torch.ones_like(power)
    off_diagonal = scaled - torch.diag_embed(torch.diagonal(scaled, dim1=-2, dim2=-1))
    system = off_diagonal + torch.diag_embed(ones + max(ridge, LEAST_RIDGE))
    solution: Tensor = torch.linalg.solve_ex(system, (scale * mean).unsqueeze(-1))[0]
    return solution.squeeze(-1) * scale


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
