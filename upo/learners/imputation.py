"""Learners of the imputed error."""

from collections.abc import Callable

import torch
from torch import Tensor

from upo.distributed import batch_sum
from upo.estimator import Estimator
from upo.functional.imputation import imputation_loss
from upo.learners.base import GradientLearner, Learner, Logs, Optimizer
from upo.models.imputation import ConstantImputation
from upo.pairs import Batch, BatchSampler


class ImputationLearner(GradientLearner):
    """Fits imputed to observed errors over O, weighted by a function of the propensity.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        omega: Weight function of the clipped propensity.
        network: Role of the trained network.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        omega: Callable[[Tensor], Tensor],
        network: str = "imputation",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        self.omega = omega

    def update(self, batch: Batch) -> Logs:
        """Descend; prediction and propensity are frozen."""
        estimator, rows = self.estimator, batch.o
        f_logit = estimator.logit("prediction", rows).detach()
        e = estimator.form.error(f_logit, rows.labels)
        e_hat = estimator.form.imputed(f_logit, estimator.logit(self.network, rows))
        omega = self.omega(estimator.p_hat(rows))
        loss = imputation_loss(e, e_hat, omega, estimator.space.density)
        self.step(loss)
        return {"loss": loss.detach()}


class ConstantLabel(Learner):
    """Sets the constant pseudo-label at the start of the stage; learns nothing afterwards.

    The label is the self-normalised IPS mean of the training labels. (Public code takes the mean of
    a part of the MAR *test* labels, which leaks.)

    Args:
        estimator: The networks; ``imputation`` is a ``ConstantImputation``.
    """

    def __init__(self, estimator: Estimator, *, network: str = "imputation") -> None:
        super().__init__(estimator, network=network)

    @torch.no_grad()
    def on_stage_start(self) -> None:
        """Estimate the label over all training rows."""
        constant = self.estimator.networks[self.network]
        if isinstance(constant, ConstantImputation) and constant.estimate:
            sampler = BatchSampler(self.estimator.space, "constant", self.estimator.space.n_train, 0)
            rows = sampler.chunk(0, 1)[0].o
            weight = 1.0 / self.estimator.p_hat(rows)
            constant.set_label(batch_sum(weight * rows.labels) / batch_sum(weight))

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn."""
        return {}
