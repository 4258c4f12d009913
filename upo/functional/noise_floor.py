r"""ECE and BMSE that correct propensities would have: what sampling noise alone adds up to.

Propensities are judged by o, which is 0 or 1. So even correct ones have an ECE and a BMSE above 0,
and more so on fewer cells: the floor is the expectation of either if o were drawn with the learned
propensities, :math:`o \sim \mathrm{Bernoulli}(\hat p)`, on the same cells. A value near its floor
says that these cells tell no miscalibration, not that there is none.

Where cells are a sample, those with o = 1 standing for :math:`w_1` cells each and those with o = 0
for :math:`w_0`, the floor has the noise of the sample in it as well.
"""

import math

from torch import Tensor


def calibration_noise(
    p_hat: Tensor,  # [...] in (0, 1)
    w_observed: Tensor | float = 1.0,
    w_others: Tensor | float = 1.0,
) -> Tensor:  # [...]
    r"""Variance that one cell adds to the sum of a bin, :math:`\sum w (o - \hat p)`.

    .. math:: \hat p (1 - \hat p) (w_1 (1 - \hat p) + w_0 \hat p)

    At least 0.

    Source: derived; a cell is drawn with probability :math:`1/w`, so it contributes
    :math:`w_1 (1 - \hat p)` with probability :math:`\hat p / w_1` and :math:`-w_0 \hat p` with
    probability :math:`(1 - \hat p) / w_0`, which has mean 0.

    Example:
        >>> calibration_noise(Tensor([0.5])).tolist()
        [0.25]
    """
    return p_hat * (1 - p_hat) * (w_observed * (1 - p_hat) + w_others * p_hat)


def imbalance_noise(
    p_hat: Tensor,  # [...] in (0, 1)
    w_observed: Tensor | float = 1.0,
    w_others: Tensor | float = 1.0,
) -> Tensor:  # [...]
    r"""Mean square of a cell's balancing weight :math:`w (o / \hat p - (1 - o) / (1 - \hat p))`.

    .. math:: w_1 / \hat p + w_0 / (1 - \hat p)

    At least 4.

    Source: derived, as :func:`calibration_noise`.

    Example:
        >>> imbalance_noise(Tensor([0.5])).tolist()
        [4.0]
    """
    return w_observed / p_hat + w_others / (1 - p_hat)


def ece_floor(variance: Tensor, cells: Tensor) -> Tensor:  # [..., M], [...] -> [...]
    r"""Expected ECE of correct propensities, the sums of the bins taken as normal.

    .. math:: \sqrt{2 / \pi} \sum_m \sqrt{V_m} / n

    Args:
        variance: Sum of ``calibration_noise`` in each bin.
        cells: Number of cells n.

    Returns:
        At least 0.

    Source: the mean of a half-normal variable.
    """
    return math.sqrt(2 / math.pi) * variance.clamp(min=0).sqrt().sum(-1) / cells


def bmse_floor(total: Tensor, cells: Tensor) -> Tensor:  # [...] x 2 -> [...]
    r"""Expected BMSE of correct propensities, :math:`\sum E[h^2] \|\phi\|^2 / n^2`; exact.

    Args:
        total: Sum over the cells of ``imbalance_noise`` times the squared norm of their features.
        cells: Number of cells n.

    Returns:
        At least 0, in squared units of the features.

    Source: the terms are independent and have mean 0.
    """
    return total / cells.square()
