"""The prediction learner and its objectives, one for each estimator of the ideal loss."""

from typing import Protocol

from torch import Tensor

from upo.core.distributed import batch_mean
from upo.errors import InputError
from upo.functional import prediction as losses
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.penalty import Strengths
from upo.models.estimator import Estimator
from upo.pairs import Batch


class Objective(Protocol):
    """A prediction loss on a batch.

    One that weighs the errors of rows of O may have a method ``importance`` of the same arguments,
    which says how much, ``[R, B]`` and about 1 on average: the penalty is weighed alike. One that
    reads further networks names their roles, ``reads = ("imputation",)``.
    """

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """Loss of each replica ``[R]``, with the graph to the prediction network."""


def inverse_propensity(estimator: Estimator, batch: Batch) -> Tensor:  # [R, B]
    """Weight density / p_hat of each row of O, at least 0; about 1 on average."""
    return estimator.space.density / estimator.p_hat(batch.rows)


class Naive:
    """Mean error of observed rows."""

    replayable = True

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``."""
        return losses.naive_loss(estimator.errors(batch.rows))


class InversePropensity:
    """IPS: errors over propensities.

    Args:
        network: Role of the predictor.
    """

    replayable = True

    importance = staticmethod(inverse_propensity)

    def __init__(self, *, network: str = "prediction") -> None:
        self.network = network

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``."""
        rows, density = batch.rows, estimator.space.density
        e = estimator.errors(rows, self.network)
        return losses.ips_loss(e, estimator.p_hat(rows), density)


class SelfNormalized:
    """SNIPS: IPS over the sum of its weights."""

    replayable = True

    @staticmethod
    def importance(estimator: Estimator, batch: Batch) -> Tensor:  # [R, B]
        """Weight of each row of O, 1 on average over the batch."""
        weight = 1.0 / estimator.p_hat(batch.rows)
        return weight / batch_mean(weight)[:, None]

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``."""
        return losses.snips_loss(estimator.errors(batch.rows), estimator.p_hat(batch.rows))


class DoublyRobust:
    """Doubly robust: imputed errors over D, corrected on observed rows.

    Args:
        dr_form: ``textbook`` (unbiased) or ``public`` (as in most public code; biased).

    Raises:
        InputError: If ``dr_form`` is unknown.
    """

    replayable = True

    reads = ("imputation",)

    importance = staticmethod(inverse_propensity)

    def __init__(self, *, dr_form: str = "textbook") -> None:
        if dr_form not in ("textbook", "public"):
            raise InputError(f"dr_form must be 'textbook' or 'public', got {dr_form!r}.")
        self.public = dr_form == "public"

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``."""
        rows, density = batch.rows, estimator.space.density
        e_o, e_hat_o, p_hat = estimator.errors(rows), estimator.imputed(rows), estimator.p_hat(rows)
        e_hat_d = estimator.imputed(batch.pairs)
        if self.public:
            return losses.dr_loss_public(e_o, e_hat_o, p_hat, e_hat_d)
        return losses.dr_loss(e_o, e_hat_o, p_hat, e_hat_d, density)


class PredictionLearner(GradientLearner):
    """Descends an objective in the prediction network.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        objective: The estimator of the ideal loss.
        network: Role of the trained network.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.

    Raises:
        InputError: If the objective reads a network that is not there.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        objective: Objective,
        network: str = "prediction",
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)
        estimator.check_reads(objective)
        self.objective = objective

    def update(self, batch: Batch) -> Logs:
        """Descend; propensity and imputation are frozen."""
        loss = self.objective(self.estimator, batch)
        self.step(loss, self.importance(batch))
        return {"loss": loss.detach()}

    def importance(self, batch: Batch) -> Tensor | None:  # [R, B]
        """How much the objective weighs each row of O; None if all alike, or for no penalty."""
        weigh = getattr(self.objective, "importance", None)
        if weigh is None or not self.penalty.active:
            return None
        return weigh(self.estimator, batch)  # type: ignore[no-any-return]
