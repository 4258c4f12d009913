"""Fixed weights under which UPO's loss bounds each of the four metrics.

By Lemma 2 of UPO every metric's error is at most the loss with a certain weight w(x). Weights for
bias and variance need the gap e - e_hat of pairs whose rating nobody knows; the prediction stands
in for the label there, so that w stays a function of x alone.
"""

import torch
from torch import Tensor

from upo.models.estimator import Estimator
from upo.pairs import Pairs

P_MIN = 1e-2  # propensities are read inside [P_MIN, 1 - P_MIN]


def calibration_weight(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
    """A weight of 1: the residuals of a bin are its calibration error."""
    return torch.ones_like(p_hat)


def balancing_weight(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
    r"""A weight :math:`f/(\hat p(1-\hat p))`: the residuals of a bin are its imbalance of f."""
    inside = p_hat.clamp(P_MIN, 1.0 - P_MIN)
    f = estimator.share(pairs).detach()
    return f / (inside * (1.0 - inside))


def bias_weight(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
    r"""A weight :math:`(e-\hat e)/\hat p`: the residuals of a bin are its share of the DR bias."""
    return expected_gap(estimator, pairs) / p_hat.clamp(min=P_MIN)


def variance_weight(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
    r"""A weight :math:`2(1-\hat p)(e-\hat e)^2/\hat p^2`, of the first-order DR variance.

    Differs: times |D|, the variance of the sum over D instead of that of the mean, which would make
    this term vanish beside the others.
    """
    inside = p_hat.clamp(min=P_MIN)
    return 2.0 * (1.0 - inside) * expected_gap(estimator, pairs) ** 2 / inside**2


@torch.no_grad()
def expected_gap(estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
    """Frozen mean of e - e_hat (of e where nothing is imputed) if the label follows f."""
    f_logit = estimator.logit("prediction", pairs)
    f, one = torch.sigmoid(f_logit), torch.ones_like(f_logit)
    error = estimator.form.error
    gap = f * error(f_logit, one) + (1.0 - f) * error(f_logit, torch.zeros_like(one))
    return gap - estimator.imputed(pairs) if estimator.has_imputation else gap
