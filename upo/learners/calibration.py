"""Learners that calibrate propensities and imputations, and the fold that is held out for them."""

from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_sum
from upo.core.sampling import splitmix64, stream_key, uniform
from upo.errors import InputError
from upo.functional.calibration import case_control_loss
from upo.functional.pointwise import cross_entropy
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.imputation import ImputationLearner
from upo.learners.propensity import PropensityLearner
from upo.models.estimator import Estimator
from upo.models.experts import CalibrationExperts
from upo.pairs import Batch, BatchSampler, ObservedPairs, Pairs


class Fold:
    """A share of D set aside for calibration: a function of seed and pair, so nothing is stored.

    What is calibrated must not be trained on it. Rows held out to select epochs are never in a
    batch of O, and calibration takes no labels or negatives from them.

    Args:
        share: Share of the pairs, in (0, 1).

    Raises:
        InputError: If the share is out of range.
    """

    replayable = True

    def __init__(self, *, share: float = 0.1) -> None:
        if not 0 < share < 1:
            raise InputError(f"share of a calibration fold must lie in (0, 1), got {share}.")
        self.share = share

    def holds(self, pairs: Pairs) -> Tensor:  # [R, B] float, 1 in the fold
        """Which pairs are in the fold."""
        space = pairs.space
        key = stream_key(space.seeds, "calibration fold")[:, None]
        index = pairs.users * space.n_items + pairs.items
        return (uniform(splitmix64(key ^ splitmix64(index))) < self.share).float()


class FoldPropensity(PropensityLearner):
    """Propensity that is not trained on the pairs of a fold.

    Args:
        estimator: The networks.
        fold: Pairs left out.
        **learner: See ``PropensityLearner``.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, fold: Fold, **learner: Any) -> None:
        super().__init__(estimator, **learner)
        self.fold = fold

    def fit(self, pairs: Pairs) -> Tensor:
        """The pointwise loss ``[R, B]``, 0 in the fold."""
        return super().fit(pairs) * (1.0 - self.fold.holds(pairs))


class _ExpertsLearner(GradientLearner):
    """Trains calibration experts, which count their steps.

    Raises:
        InputError: If the network is no ``CalibrationExperts``.
    """

    def __init__(self, estimator: Estimator, *, optimizer: Optimizer, network: str) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        self.experts = estimator.network_of(network, CalibrationExperts)

    def step(self, loss: Tensor, importance: Tensor | None = None) -> None:  # [R]
        """Descend, and let the gate go on."""
        super().step(loss, importance)
        self.experts.stepped()


class PropensityCalibration(_ExpertsLearner):
    """Fits calibration experts of the propensity on the fold, observed pairs against unobserved.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        fold: Pairs that the propensity was not trained on.
        network: Role of the experts.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        fold: Fold,
        network: str = "propensity",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        self.fold = fold

    def update(self, batch: Batch) -> Logs:
        """Descend; the propensity network is frozen."""
        rows, pairs, density = batch.rows, batch.pairs, self.estimator.space.density
        loss = case_control_loss(
            self.estimator.logit(self.network, rows),
            self.fold.holds(rows),
            self.estimator.logit(self.network, pairs),
            self.fold.holds(pairs) * (1.0 - pairs.o),
            density,
        )
        self.step(loss)
        return {"loss": loss.detach()}


class FoldImputation(ImputationLearner):
    """Imputation that is not trained on the rows of a fold.

    Args:
        estimator: The networks.
        fold: Rows left out.
        **learner: See ``ImputationLearner``.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, fold: Fold, **learner: Any) -> None:
        super().__init__(estimator, **learner)
        self.fold = fold

    def weight(self, rows: ObservedPairs) -> Tensor:
        """Weight of each row, 0 in the fold."""
        return super().weight(rows) * (1.0 - self.fold.holds(rows))


class ImputationCalibration(_ExpertsLearner):
    """Calibrates pseudo-labels against the fold's labels, some steps before each epoch.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        fold: Rows that the imputation is not trained on.
        steps: Steps before each epoch, at least 1.
        rows: Training rows drawn for a step; those of the fold are used.
        network: Role of the experts.

    Raises:
        InputError: If ``steps`` or ``rows`` is below 1.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        fold: Fold,
        steps: int = 10,
        rows: int = 4096,
        network: str = "imputation",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        if steps < 1 or rows < 1:
            raise InputError(f"steps and rows must be at least 1, got {steps} and {rows}.")
        self.fold, self.steps = fold, steps
        self.sampler = BatchSampler(estimator.space, f"calibrate {network}", rows, 0)
        self.loss = torch.zeros(estimator.space.replicas)

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Descend on inversely weighted rows of the fold; every other network is frozen."""
        for batch in self.sampler.chunk(epoch * self.steps, self.steps):
            rows = batch.rows
            weight = self.fold.holds(rows) / self.estimator.p_hat(rows)
            error = cross_entropy(self.estimator.logit(self.network, rows), rows.labels)
            loss = batch_sum(weight * error) / batch_sum(weight).clamp(min=1.0)
            self.step(loss)
            self.loss = loss.detach()

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within an epoch."""
        return {"loss": self.loss}
