"""By which errors predictions of a target are measured, and by which one an epoch is judged."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from upo.metrics.names import JUDGE, POINTWISE, POINTWISE_OF
from upo.models.estimator import Estimator

_EPS = torch.finfo(torch.float64).eps  # as in upo.metrics.LogLoss


@dataclass(frozen=True)
class Scoring:
    """How predictions are measured.

    Attributes:
        judge: Name of the mean error by which epochs are judged; lower is better.
        error: Of float64 predictions and labels, both in the unit of predictions.
        target: What predictions are of.
    """

    judge: str
    error: Callable[[Tensor, Tensor], Tensor]
    target: str

    def judging(self, replicas: int) -> Metric:
        """The mean of the error, weighted or not."""
        return POINTWISE[self.judge](replicas=replicas)

    def pointwise(self) -> dict[str, Metric]:
        """What is measured on the test set, by name."""
        return {name: metric() for name, metric in POINTWISE_OF[self.target].items()}


def _cross_entropy(f: Tensor, labels: Tensor) -> Tensor:
    f, y = f.clamp(_EPS, 1 - _EPS), labels.double()
    return -y * f.log() - (1 - y) * torch.log1p(-f)


def _squared(f: Tensor, labels: Tensor) -> Tensor:
    return (f - labels.double()) ** 2


SCORING = {
    name: Scoring(JUDGE[name], error, name)
    for name, error in (("positive", _cross_entropy), ("rating", _squared))
}


def scoring_of(estimator: Estimator) -> Scoring:
    """How an estimator's predictions are measured."""
    return SCORING[estimator.space.target.name]
