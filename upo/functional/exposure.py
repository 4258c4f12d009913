r"""The neighbourhood effect: weights of pairs by what else was rated around them (N-IPS, N-DR).

Symbols: :math:`g_{ui}` statistic of the neighbours' treatments; :math:`g_0` a target; q its density
given the pair's features, among observed pairs.

Source: Li et al., "Be aware of the neighborhood effect", ICLR 2024.
"""

import math

import torch
from torch import Tensor


def neighbour_count(user_degree: Tensor, item_degree: Tensor, o: Tensor) -> Tensor:
    """Ratings of the user and of the item beside the pair's own: deg(u) + deg(i) - 2 o, any shape.

    At least 0.

    Source: public code of Li et al., ICLR 2024.
    """
    return user_degree + item_degree - 2.0 * o


def target_kernel(g: Tensor, targets: Tensor, width: float) -> Tensor:  # [R, B], [R, J]
    r"""Gaussian kernel :math:`K_h(g-g_0)` of every target, ``[R, J, B]``; it integrates to 1.

    Source: Li et al., ICLR 2024, the smoothing in g. Public code leaves the normaliser out.

    Args:
        g: Statistic of the pairs.
        targets: :math:`g_0`.
        width: h above 0, in units of g.
    """
    distance = (g.unsqueeze(-2) - targets.unsqueeze(-1)) / width
    return torch.exp(-0.5 * distance**2) / (width * math.sqrt(2.0 * math.pi))


def neighbourhood_factor(g: Tensor, targets: Tensor, density: Tensor, width: float) -> Tensor:
    r"""Mean over targets of :math:`K_h(g-g_0)/q(g_0\mid x)`, the factor of a pair's weight 1/p.

    With right p and q, :math:`\mathrm{mean}_D\,o\,K_h(g-g_0)e/(pq)` is the loss at
    :math:`g=g_0`, smoothed. At least 0.

    Source: Li et al., ICLR 2024, whose public code multiplies by an odds of q, which inverts ratios
    between pairs; here q divides.

    Args:
        g: ``[R, B]`` statistic of observed pairs.
        targets: ``[R, J]``.
        density: ``[R, J, B]`` q at each target, above 0.
        width: h above 0; infinite for the factor of a flat kernel, up to a constant.

    Returns:
        ``[R, B]``.
    """
    kernel = torch.ones_like(density) if math.isinf(width) else target_kernel(g, targets, width)
    return (kernel / density).mean(-2)
