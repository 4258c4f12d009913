"""DR-MSE with a learned mix: the imputation under it, and the player that learns it ahead."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from upo.core.distributed import batch_mean
from upo.core.lookups import batch_of
from upo.errors import InputError
from upo.functional.imputation import label_loss
from upo.functional.prediction import dr_loss
from upo.learners.ahead import ahead, along, slopes
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.imputation import LABELLED, ImputationLearner
from upo.models.estimator import Estimator
from upo.models.mix import Mix
from upo.pairs import Batch, ObservedPairs, Pairs


class MixedImputation(ImputationLearner):
    """Imputation under the weights of a ``Mix``, which is frozen here.

    Args:
        estimator: The networks.
        mix: Role of the mix.
        **learner: See ``ImputationLearner``; its ``omega`` is not read.

    Raises:
        InputError: If the network of the mix is another.
    """

    def __init__(self, estimator: Estimator, *, mix: str = "mix", **learner: Any) -> None:
        super().__init__(estimator, **learner)
        self.mix = estimator.network_of(mix, Mix)

    def weight(self, rows: ObservedPairs) -> Tensor:  # [R, B]
        """Weight of each row."""
        return self.mix.weight(self.estimator, rows).detach()


class MixLookAhead(GradientLearner):
    r"""Moves the mix so that a step of the imputation lowers the doubly robust loss.

    With :math:`\phi_1=\phi-\eta\nabla L_{imp}(\phi;\lambda)` and the slope g of :math:`L_{DR}` at
    :math:`\phi_1`,

    .. math:: \frac{dL_{DR}(\theta,\phi_1)}{d\lambda}
        =-\eta\,\frac{d}{d\lambda}\langle g,\nabla L_{imp}(\phi;\lambda)\rangle,

    and the mix enters the imputation loss as the weight of single rows, so how fast each row's
    squared gap moves along g is all that is needed.

    Source: Dai et al., KDD 2022, the tri-level step. Differs: plain descent is looked ahead of
    whatever optimiser the imputation has.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser of the mix.
        rate: :math:`\eta` of the step looked ahead, above 0.
        network: Role of the mix.
        imputation: Role of the imputation.

    Raises:
        InputError: If the rate is not positive, or the form of the error has no pseudo-label, with
            which the doubly robust loss would not depend on the imputation.
    """

    whole_tables = "looks ahead of whole tables by a step"

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        rate: float = 1.0,
        network: str = "mix",
        imputation: str = "imputation",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        if not 0 < rate < float("inf"):
            raise InputError(f"rate of the mix must be positive, got {rate}; try 1.")
        if not isinstance(estimator.form, LABELLED):
            raise InputError(
                f"A learned mix needs a pseudo-label, and {type(estimator.form).__name__} has "
                "none; use estimator.form PseudoLabel, or imputation=mse."
            )
        estimator.network(imputation)  # or it says what is missing
        self.mix = estimator.network_of(network, Mix)
        self.rate, self.imputation = rate, imputation

    def update(self, batch: Batch) -> Logs:
        """Descend the loss one step of the imputation ahead; prediction and imputation stay."""
        estimator, rows = self.estimator, batch.rows
        network = estimator.network(self.imputation)
        params, density = dict(network.named_parameters()), estimator.space.density
        weight = self.mix.weight(estimator, rows)
        g_logit = estimator.logit(self.imputation, rows)
        gap = self._squared_gap(rows, g_logit)
        later = ahead(label_loss(gap, weight.detach(), density), params, self.rate)
        value = self._robust_loss(batch, later)
        g = slopes(value, list(later.values()))
        (bend,) = torch.autograd.grad(gap.sum(), g_logit)
        moved = bend * along(g_logit, list(params.values()), g)
        term = -self.rate * label_loss(moved, weight, density)
        logs = {"robust": value.detach()}
        with torch.no_grad():
            logs["share"] = batch_mean(self.mix.share(estimator, rows))
        self.step(logs["robust"] + (term - term.detach()))  # the loss, with its slope
        return logs

    def _squared_gap(self, rows: ObservedPairs, g_logit: Tensor) -> Tensor:  # [R, B]
        """(e - e_hat)^2 with the graph to the imputation alone."""
        estimator = self.estimator
        f_logit = estimator.logit("prediction", rows).detach()
        e, e_hat = estimator.form.regression(f_logit, rows.labels, g_logit)
        gap: Tensor = (e - e_hat) ** 2
        return gap

    def _robust_loss(self, batch: Batch, later: dict[str, Tensor]) -> Tensor:  # [R]
        estimator, rows, pairs = self.estimator, batch.rows, batch.pairs
        with torch.no_grad():
            e, p_hat = estimator.errors(rows), estimator.p_hat(rows)
        e_hat_o, e_hat_d = (self._imputed(part, later) for part in (rows, pairs))
        return dr_loss(e, e_hat_o, p_hat, e_hat_d, estimator.space.density)

    def _imputed(self, pairs: Pairs, later: dict[str, Tensor]) -> Tensor:  # [R, B]
        """Imputed errors of the parameters ahead, with the graph to them alone."""
        estimator, network = self.estimator, self.estimator.network(self.imputation)
        with batch_of(pairs.total):
            g_logit = functional_call(network, later, (pairs.users, pairs.items))
        return estimator.form.imputed(estimator.logit("prediction", pairs).detach(), g_logit)
