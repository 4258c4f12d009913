"""Pointwise prediction errors, written from logits."""

import torch
from torch import Tensor


def cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy :math:`-t\log f - (1-t)\log(1-f)` of a prediction :math:`f=\sigma(logit)`.

    Differentiable in both arguments; the prediction comes first, the target second. (Public code of
    imputation losses swaps them, which is another function.)

    Args:
        logit: Logits of the prediction, any shape.
        target: Targets in [0, 1], same shape; labels or pseudo-labels.

    Returns:
        The same shape; at least 0.

    Source: definition, minus the log-likelihood of a Bernoulli variable.

    >>> cross_entropy(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor([0.6931])
    """
    return torch.nn.functional.softplus(logit) - target * logit


def squared_error(logit: Tensor, target: Tensor) -> Tensor:
    r"""Squared error :math:`(\sigma(logit) - t)^2` (Brier score when the target is a label).

    Args:
        logit: Logits of the prediction, any shape.
        target: Targets in [0, 1], same shape.

    Returns:
        The same shape; in [0, 1].

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    return (torch.sigmoid(logit) - target) ** 2
