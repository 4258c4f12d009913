"""The learner of the neighbourhood's density (N-IPS, N-DR)."""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.functional.pointwise import cross_entropy
from upo.learners.base import GradientLearner, Learner, Logs, Optimizer
from upo.models.estimator import Estimator
from upo.models.exposure import ExposureDensity
from upo.pairs import Batch


class ExposureLearner(GradientLearner):
    """Trains the classifier of g against the uniform density, which it integrates on a grid.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        network: Role of the ``ExposureDensity``.
    """

    replayable = True

    def __init__(
        self, estimator: Estimator, *, optimizer: Optimizer, network: str = "exposure"
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        self.exposure = estimator.network_of(network, ExposureDensity)

    def on_stage_start(self) -> None:
        """Count the log."""
        self.exposure.place(self.estimator)

    def update(self, batch: Batch) -> Logs:
        """Descend the classifier's cross-entropy on rows of O; the representation is frozen."""
        rows, exposure = batch.rows, self.exposure
        features = self.estimator.features(exposure.representation, rows)
        own = self._loss(features, exposure.statistic(rows), 1.0)
        grid = [g[:, None].expand(rows.users.shape) for g in exposure.grid().unbind(1)]
        others = torch.stack([self._loss(features, g, 0.0) for g in grid]).mean(0)
        loss = 0.5 * (own + others)
        self.step(loss)
        return {"loss": loss.detach()}

    def _loss(self, features: Tensor, g: Tensor, label: float) -> Tensor:  # [R]
        logit = self.exposure.logit(features, g)
        return batch_mean(cross_entropy(logit, torch.full_like(logit, label)))


class ExposureLevel(Learner):
    """Scales the neighbourhood's factors to a mean of 1 when their density is learned.

    Args:
        estimator: The networks.
        network: Role of the ``ExposureDensity``.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, network: str = "exposure") -> None:
        super().__init__(estimator, network=network)
        self.exposure = estimator.network_of(network, ExposureDensity)

    def on_stage_start(self) -> None:
        """Measure over all training rows."""
        self.exposure.settle(self.estimator)
        self.estimator.stepped(self.network)

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn."""
        return {}
