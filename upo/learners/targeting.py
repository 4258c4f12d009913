"""Targeting of imputations: closed-form players that refit one number for each replica."""

from typing import Any

import torch
from torch import Tensor

from upo.errors import InputError
from upo.functional.targeting import (
    clever_covariate,
    error_fluctuation,
    label_fluctuation,
    squared_targeting_loss,
)
from upo.learners.base import Learner, Logs
from upo.learners.imputation import ImputationLearner
from upo.models.derived import Targeted
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler, ObservedPairs, training_rows


class Targeting(Learner):
    r"""Refits the :math:`\epsilon` of a ``Targeted`` imputation on all training rows, each epoch.

    Args:
        estimator: The networks.
        network: Role of the targeted imputation.
        limit: Bound of :math:`\epsilon` in absolute value.

    Raises:
        InputError: If the network is not ``Targeted`` or the limit is not positive.
    """

    replayable = True

    def __init__(
        self, estimator: Estimator, *, network: str = "imputation", limit: float = 5.0
    ) -> None:
        super().__init__(estimator, network=network)
        if not limit > 0:
            raise InputError(f"limit of a targeting learner must be positive, got {limit}; try 5.")
        self.targeted, self.limit = estimator.network_of(network, Targeted), limit

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Refit; every network is frozen."""
        estimator, source = self.estimator, self.targeted.sources[0]
        blocks = [
            (rows.labels, estimator.logit(source, rows), clever_covariate(estimator.p_hat(rows)))
            for rows in training_rows(estimator.space)
        ]
        label, y_logit, h = (torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))
        fluctuation = label_fluctuation(label, y_logit, h, limit=self.limit)
        self.targeted.epsilon.copy_(fluctuation[:, None])
        estimator.stepped(self.network)

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within an epoch."""
        return {"epsilon": self.targeted.epsilon[:, 0].clone()}


class CollaborativeImputation(ImputationLearner):
    r"""Imputation fitted to :math:`e-\epsilon H`, with :math:`\epsilon` refitted each epoch.

    Targeting on the error scale: :math:`\epsilon H` does not reach the prediction's gradient by
    itself, so it acts through the imputation network.

    Args:
        estimator: The networks.
        **learner: See ``ImputationLearner``.
    """

    def __init__(self, estimator: Estimator, **learner: Any) -> None:
        super().__init__(estimator, **learner)
        self.epsilon = torch.zeros(estimator.space.replicas, 1)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Refit; every network is frozen."""
        estimator, form = self.estimator, self.estimator.form
        blocks = []
        for rows in training_rows(estimator.space):
            f_logit = estimator.logit("prediction", rows)
            e = form.error(f_logit, rows.labels)
            e_hat = form.imputed(f_logit, estimator.logit(self.output, rows))
            blocks.append((e, e_hat, clever_covariate(estimator.p_hat(rows))))
        e, e_hat, h = (torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))
        self.epsilon = error_fluctuation(e, e_hat, h)[:, None]

    def target(self, e: Tensor, rows: ObservedPairs) -> Tensor:
        """The prediction error less the fluctuation."""
        return e - self.epsilon * clever_covariate(self.estimator.p_hat(rows))


class SquaredTargeting:
    """Objective of the single last step of public TDR code (``variant=squared_step``)."""

    replayable = True

    reads = ("imputation",)

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        rows, pairs = batch.rows, batch.pairs
        return squared_targeting_loss(
            estimator.errors(rows),
            estimator.imputed(rows),
            estimator.p_hat(rows),
            estimator.imputed(pairs),
            estimator.p_hat(pairs),
        )
