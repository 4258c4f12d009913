"""Weighted means of pointwise errors; NaN without any row, or if all weights are 0."""

from typing import Any

import torch
from torch import Tensor

from upo.metrics.base import ReplicaMetric
from upo.metrics.checks import FINITE, PROBABILITY, WEIGHT


class _WeightedMean(ReplicaMetric):
    """Running sums of weighted values and of weights.

    The name of the sum differs between subclasses: torchmetrics' ``MetricCollection`` takes metrics
    with equal states, as after an empty first batch, for one and the same.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    total_name: str
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum(self.total_name)
        self.add_sum("weight")

    def _add(self, values: Tensor, weight: Tensor) -> None:
        weight = weight.double()
        total = getattr(self, self.total_name) + (weight * values).sum(-1)
        setattr(self, self.total_name, total)
        self.weight = self.weight + weight.sum(-1)

    def compute(self) -> Tensor:
        return self.per_replica(getattr(self, self.total_name) / self.weight)


class LogLoss(_WeightedMean):
    r"""Mean cross-entropy :math:`-y \log f - (1 - y) \log(1 - f)` of probabilities.

    f is clipped to [eps, 1 - eps] with the machine epsilon of its type, as scikit-learn does, so a
    saturated wrong prediction costs 16 in float32 and 36 in float64, not infinity.

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    total_name = "log_loss"

    def update(self, probabilities: Tensor, labels: Tensor, weight: Tensor | None = None) -> None:
        """Add rows: probabilities and labels in [0, 1], weights (1 by default) at least 0."""
        f, y, w = self.read(
            probabilities=(probabilities, PROBABILITY),
            labels=(labels, PROBABILITY),
            weight=(weight, WEIGHT),
        )
        eps = torch.finfo(f.dtype).eps if f.is_floating_point() else torch.finfo(torch.float64).eps
        f, y = f.clamp(eps, 1 - eps).double(), y.double()
        self._add(-y * f.log() - (1 - y) * torch.log1p(-f), w)


class MeanSquaredError(_WeightedMean):
    r"""Mean of :math:`(f - y)^2`.

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    total_name = "squared_error"

    def update(self, predictions: Tensor, targets: Tensor, weight: Tensor | None = None) -> None:
        """Add rows: finite predictions and targets, weights (1 by default) at least 0."""
        f, y, w = self.read(
            predictions=(predictions, FINITE),
            targets=(targets, FINITE),
            weight=(weight, WEIGHT),
        )
        self._add((f.double() - y.double()).square(), w)


class RootMeanSquaredError(MeanSquaredError):
    r"""Root of the mean of :math:`(f - y)^2`, in the unit of the targets.

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    total_name = "squared_error_of_root"

    def compute(self) -> Tensor:
        return super().compute().sqrt()


class MeanAbsoluteError(_WeightedMean):
    r"""Mean of :math:`|f - y|`, in the unit of the targets.

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    total_name = "absolute_error"

    def update(self, predictions: Tensor, targets: Tensor, weight: Tensor | None = None) -> None:
        """Add rows: finite predictions and targets, weights (1 by default) at least 0."""
        f, y, w = self.read(
            predictions=(predictions, FINITE),
            targets=(targets, FINITE),
            weight=(weight, WEIGHT),
        )
        self._add((f.double() - y.double()).abs(), w)
