"""Learners of the imputed error."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from upo.core.distributed import batch_sum
from upo.errors import InputError
from upo.functional.imputation import imputation_loss, label_loss
from upo.learners.base import GradientLearner, Learner, Logs, Optimizer
from upo.learners.penalty import Strengths
from upo.models.estimator import Estimator
from upo.models.imputation import (
    ConstantImputation,
    PseudoLabel,
    PseudoRating,
    SquaredPseudoLabel,
)
from upo.pairs import Batch, BatchSampler, ObservedPairs

# forms whose imputation is a pseudo-label
LABELLED = (PseudoLabel, SquaredPseudoLabel, PseudoRating)


class RowPenalty(Protocol):
    """A term added to the imputation loss."""

    def __call__(self, estimator: Estimator, rows: ObservedPairs) -> Tensor:
        """Penalty of each replica ``[R]``, with the graph to the imputation networks."""


class ImputationLearner(GradientLearner):
    """Fits imputed to observed errors over O, weighted by a function of the propensity.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        omega: Weight function of the clipped propensity; None weighs all rows alike.
        network: Role of the trained network.
        output: Role whose imputed error is fitted, where it is derived from the trained network;
            by default the trained network's own.
        penalties: Name -> term added to the loss.
        regression: ``error``: the imputed error is fitted to the observed one by squares;
            ``label``: the pseudo-label is fitted to the label by the target's own loss, the
            cross-entropy or the squared error of ratings, whatever the prediction says.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.

    Raises:
        InputError: If ``regression`` is unknown, or asks for pseudo-labels where the form of the
            error has none, or where another target than the error was fitted.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        omega: Callable[[Tensor], Tensor] | None,
        network: str = "imputation",
        output: str | None = None,
        penalties: dict[str, RowPenalty] | None = None,
        regression: str = "error",
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)
        if regression not in ("error", "label"):
            raise InputError(f"regression must be 'error' or 'label', got {regression!r}.")
        if regression == "label" and not isinstance(estimator.form, LABELLED):
            raise InputError(
                f"regression=label fits a pseudo-label, and {type(estimator.form).__name__} has "
                "none; use estimator.form PseudoLabel, or regression=error."
            )
        if regression == "label" and type(self).target is not ImputationLearner.target:
            raise InputError(
                f"{type(self).__name__} fits another target than the error, which regression=label "
                "would leave out; use regression=error."
            )
        self.regression = regression
        self.omega = omega
        self.output = output or network
        self.penalties = dict(penalties or {})

    def update(self, batch: Batch) -> Logs:
        """Descend; prediction and propensity are frozen."""
        estimator, rows = self.estimator, batch.rows
        loss = self.fit(rows)
        logs = {"loss": loss.detach()}
        for name, penalty in self.penalties.items():
            term = penalty(estimator, rows)
            logs[name] = term.detach()
            loss = loss + term
        penalised = self.penalty.active
        self.step(loss, estimator.space.density * self.weight(rows) if penalised else None)
        return logs

    def fit(self, rows: ObservedPairs) -> Tensor:  # [R]
        """The loss without penalties, with the graph to the imputation networks."""
        estimator, density = self.estimator, self.estimator.space.density
        g_logit = estimator.logit(self.output, rows)
        if self.regression == "label":
            loss = estimator.space.target.loss(g_logit, rows.labels)
            return label_loss(loss, self.weight(rows), density)
        f_logit = estimator.logit("prediction", rows).detach()
        e, e_hat = estimator.form.regression(f_logit, rows.labels, g_logit)
        return imputation_loss(self.target(e, rows), e_hat, self.weight(rows), density)

    def target(self, e: Tensor, rows: ObservedPairs) -> Tensor:  # [R, B]
        """What the imputed error is fitted to: the prediction error."""
        return e

    def weight(self, rows: ObservedPairs) -> Tensor:  # [R, B]
        """Weight of each row."""
        if self.omega is None:
            return torch.ones_like(rows.labels)
        return self.omega(self.estimator.p_hat(rows))


class ConstantLabel(Learner):
    """Sets the constant pseudo-label at the start of the stage; learns nothing afterwards.

    The label is the self-normalised IPS mean of the training labels. (Public code takes the mean of
    a part of the MAR *test* labels, which leaks.)

    Args:
        estimator: The networks; ``imputation`` is a ``ConstantImputation``.
    """

    replayable = True

    def __init__(self, estimator: Estimator, *, network: str = "imputation") -> None:
        super().__init__(estimator, network=network)
        constant, target = estimator.networks[network], estimator.space.target
        given = isinstance(constant, ConstantImputation) and not constant.estimate
        if given and target.name != "positive":
            raise InputError(
                f"estimator.networks.{network}.label is a probability, and target={target.name} "
                "has none; leave it null, so that it is estimated."
            )

    @torch.no_grad()
    def on_stage_start(self) -> None:
        """Estimate the label over all training rows."""
        constant = self.estimator.networks[self.network]
        if isinstance(constant, ConstantImputation) and constant.estimate:
            sampler = BatchSampler(
                self.estimator.space, "constant", self.estimator.space.n_train, 0
            )
            rows = sampler.chunk(0, 1)[0].rows
            weight = 1.0 / self.estimator.p_hat(rows)
            label = batch_sum(weight * rows.labels) / batch_sum(weight)
            constant.set_output(self.estimator.space.target.output(label))

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn."""
        return {}
