r"""Targeting: fluctuate an imputation until weighted residuals over O vanish.

With :math:`H=1/\hat p-1` and :math:`\sum_O H(e-\tilde e)=0` the doubly robust loss equals the
error-imputation one, so the inverse propensities no longer add variance.

Source: Li, Lyu, Zheng, Wu, "TDR-CL: targeted doubly robust collaborative learning", ICLR 2023.
"""

import torch
from torch import Tensor

from upo.core.distributed import batch_sum

NEGLIGIBLE = 1e-5  # a covariate with a smaller root mean square is the error of the clip at 1


def clever_covariate(p_hat: Tensor) -> Tensor:  # any shape -> the same
    r""":math:`H = 1/\hat p - 1` for clipped propensities in (0, 1]; 0 where the pair is certain.

    At least 0.

    Source: Li et al., "TDR-CL", ICLR 2023. (A public port takes p - 1 for 1 / p - 1.)
    """
    return 1.0 / p_hat - 1.0


def error_fluctuation(e: Tensor, e_hat: Tensor, h: Tensor) -> Tensor:  # [R, B] x 3 -> [R]
    r""":math:`\epsilon=\sum_O H(e-\hat e)/\sum_O H^2`, of :math:`\tilde e=\hat e+\epsilon H`.

    0 where every propensity is 1 and :math:`\epsilon` is undefined. Of any sign, in units of the
    error.

    Source: Li et al., "TDR-CL", ICLR 2023.

    >>> error_fluctuation(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([4.0]))
    tensor(0.2500)
    """
    power = batch_sum(h * h)
    fluctuation = batch_sum(h * (e - e_hat)) / power.clamp(min=torch.finfo(h.dtype).tiny)
    return torch.where(_matters(h, power), fluctuation, 0.0)


def squared_targeting_loss(
    e_o: Tensor,  # [R, B] prediction error on observed rows
    e_hat_o: Tensor,  # [R, B] imputed error there
    p_hat_o: Tensor,  # [R, B] clipped propensity there
    e_hat_d: Tensor,  # [R, n] imputed error on pairs of D
    p_hat_d: Tensor,  # [R, n] clipped propensity there
) -> Tensor:  # [R]
    r"""The last step of public TDR code, in which targeting reaches the prediction by squaring.

    .. math:: \frac1n\Bigl(\sum_O e^2/\hat p-\sum_O(\hat e+\epsilon H)^2
              +\sum_D(\hat e+\epsilon H)^2\Bigr)

    As it is taken: errors are squared once more, the imputed ones are not divided by the
    propensity, and :math:`\epsilon` is that of one batch. Offered to reproduce figures made with
    it; without the squares :math:`\epsilon H` would add nothing to the prediction's gradient.
    The loss is of any sign.

    Source: public ports of TDR (Li et al., ICLR 2023).
    """
    h_o, h_d = clever_covariate(p_hat_o), clever_covariate(p_hat_d)
    epsilon = error_fluctuation(e_o.detach(), e_hat_o.detach(), h_o).unsqueeze(-1)
    observed = batch_sum(e_o**2 / p_hat_o) - batch_sum((e_hat_o + epsilon * h_o) ** 2)
    count = batch_sum(torch.ones_like(e_hat_d)).clamp(min=1.0)
    return (observed + batch_sum((e_hat_d + epsilon * h_d) ** 2)) / count


def label_fluctuation(
    label: Tensor,  # [R, B] 0/1
    y_logit: Tensor,  # [R, B] logit of the pseudo-label
    h: Tensor,  # [R, B]
    *,
    limit: float = 5.0,
    iterations: int = 40,
) -> Tensor:  # [R]
    r"""The :math:`\epsilon` at which weighted residuals of the pseudo-labels vanish.

    .. math:: \sum_O H\,(r-\sigma(\mathrm{logit}\,\tilde y+\epsilon H))=0

    This is logistic regression on H with an offset. The score falls in :math:`\epsilon`, so Newton
    steps are kept in a shrinking bracket; a fixed number of them needs no look at the values. Where
    the root is at infinity (all labels alike) the result is the nearest bound, and where every
    propensity is 1 it is 0.

    Args:
        label: Labels of observed rows.
        y_logit: Logits of their pseudo-labels.
        h: Clever covariate, at least 0.
        limit: Bound of the result in absolute value, positive.
        iterations: Steps.

    Returns:
        ``[R]`` in [-limit, limit], without a gradient of its own to rely on.

    Source: after Li et al., "TDR-CL", ICLR 2023. Differs: targeted on the scale of labels, since a
    fluctuation of the error leaves the prediction's gradient as it is.
    """
    score_type = torch.float64
    label, offset, h64 = label.to(score_type), y_logit.to(score_type), h.to(score_type)
    low = torch.full_like(h64.sum(-1), -limit)
    high, fluctuation = -low, torch.zeros_like(low)
    for _ in range(iterations):
        y = torch.sigmoid(offset + fluctuation.unsqueeze(-1) * h64)
        score = batch_sum(h64 * (label - y))
        curvature = batch_sum(h64 * h64 * y * (1 - y))
        low = torch.where(score >= 0, fluctuation, low)
        high = torch.where(score <= 0, fluctuation, high)
        newton = fluctuation + score / curvature.clamp(min=torch.finfo(score_type).tiny)
        inside = (newton >= low) & (newton <= high)
        fluctuation = torch.where(inside, newton, (low + high) / 2)
    return torch.where(_matters(h64, batch_sum(h64 * h64)), fluctuation, 0.0).to(h.dtype)


def _matters(h: Tensor, power: Tensor) -> Tensor:  # -> [R] bool
    return power > batch_sum(torch.full_like(h, NEGLIGIBLE**2))
