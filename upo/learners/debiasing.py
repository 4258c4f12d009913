"""AutoDebias: a prediction under learned weights, and the player that learns these ahead of it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from upo.core.distributed import batch_mean, batch_sum, share
from upo.core.lookups import batch_of
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.learners.ahead import ahead, along, slopes
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.models.debiasing import DebiasingParameters
from upo.models.estimator import Estimator
from upo.models.imputation import PseudoLabel
from upo.pairs import Batch, BatchSampler
from upo.pairs.uniform import LentRows


class AutoDebiased:
    r"""Weighted errors of the log, and errors against a pseudo-label on D; both frozen.

    .. math:: \sum_O we\,/\sum_O w+\lambda\,\mathrm{mean}_D\,CE(f,m)

    Source: Chen et al., SIGIR 2021, the three-label form.

    Args:
        strength: :math:`\lambda`, at least 0.
        network: Role of the ``DebiasingParameters``.

    Raises:
        InputError: If the strength is negative.
    """

    def __init__(self, *, strength: float = 0.3, network: str = "debiasing") -> None:
        if not 0 <= strength < float("inf"):
            raise InputError(f"strength of AutoDebias must be at least 0, got {strength}; try 0.3.")
        self.strength, self.network = strength, network

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        parameters = estimator.network_of(self.network, DebiasingParameters)
        with torch.no_grad():
            weight, label = parameters.weight(batch.rows), parameters.label(batch.pairs)
        e = estimator.errors(batch.rows)
        f_logit = estimator.logit("prediction", batch.pairs)
        imputed = batch_mean(cross_entropy(f_logit, label))
        return batch_sum(weight * e) / batch_sum(weight) + self.strength * imputed

    def importance(self, estimator: Estimator, batch: Batch) -> Tensor:  # [R, B]
        """Weight of each row of O, 1 on average over the batch."""
        with torch.no_grad():
            weight = estimator.network_of(self.network, DebiasingParameters).weight(batch.rows)
            return weight / batch_mean(weight)[:, None]


class LookAhead(GradientLearner):
    r"""Moves the debiasing parameters so that a step of the prediction lowers a uniform loss.

    With :math:`\theta_1=\theta-\eta\nabla L(\theta;\phi)` and the slope g of the loss on lent
    ratings at :math:`\theta_1`,

    .. math:: \frac{dL_S(\theta_1)}{d\phi}
        =-\eta\,\frac{d}{d\phi}\langle g,\nabla L(\theta;\phi)\rangle,

    and L depends on :math:`\phi` through weights and pseudo-labels of single rows alone, so how far
    each row's logit moves along g is all that is needed: no graph of second order of the loss.

    Source: Chen et al., SIGIR 2021, the meta step. Differs: plain descent is looked ahead of
    whatever optimiser the prediction has.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser of the debiasing parameters.
        objective: That of the prediction.
        rate: :math:`\eta` of the step looked ahead, above 0.
        lent: Share of the MAR users whose ratings teach.
        network: Role of the debiasing parameters.

    Raises:
        InputError: If the rate is not positive, there are no ratings at random, or the error is no
            cross-entropy.
    """

    whole_tables = "looks ahead of whole tables by a step"

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        objective: AutoDebiased,
        rate: float = 0.1,
        lent: float = 0.1,
        network: str = "debiasing",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        if not 0 < rate < float("inf"):
            raise InputError(f"rate of AutoDebias must be positive, got {rate}; try 0.1.")
        uniform = estimator.space.uniform
        if uniform is None or not len(uniform.users):
            raise InputError("AutoDebias learns from ratings at random, and the dataset has none.")
        if not isinstance(estimator.form, PseudoLabel):
            raise InputError(
                f"AutoDebias learns labels by cross-entropy, and the error is "
                f"{type(estimator.form).__name__}; choose another estimator or target."
            )
        self.parameters = estimator.network_of(network, DebiasingParameters)
        self.objective, self.rate, self.lent = objective, rate, lent
        self.rows: LentRows | None = None

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Find the lent ratings, once: no step waits for it."""
        space = self.estimator.space
        assert space.uniform is not None  # checked when made
        self.rows = space.uniform.to(space.keys.device).lent(space.seeds, self.lent)

    def update(self, batch: Batch) -> Logs:
        """Descend the uniform loss one step ahead; the prediction stays where it is."""
        estimator, network = self.estimator, self.estimator.network("prediction")
        params = dict(network.named_parameters())
        later = ahead(self.objective(estimator, batch), params, self.rate)
        uniform = self._uniform_loss(later)
        g = slopes(uniform, list(later.values()))
        term = -self.rate * self.moved(batch, list(params.values()), g)
        value = uniform.detach()
        self.step(value + (term - term.detach()))  # the uniform loss, with its slope
        return {"uniform": value}

    def moved(self, batch: Batch, params: Sequence[Tensor], g: Sequence[Tensor]) -> Tensor:
        """Slope of the prediction's loss along g ``[R]``, with the graph to the parameters."""
        estimator, rows, pairs = self.estimator, batch.rows, batch.pairs
        f_o, f_d = (estimator.logit("prediction", part) for part in (rows, pairs))
        t_o, t_d = (along(f, params, g) for f in (f_o, f_d))
        weight, label = self.parameters.weight(rows), self.parameters.label(pairs)
        gap = (torch.sigmoid(f_o.detach()) - rows.labels) * t_o
        weighted = batch_sum(weight * gap) / batch_sum(weight)
        imputed = batch_mean((torch.sigmoid(f_d.detach()) - label) * t_d)
        return weighted + self.objective.strength * imputed

    def _uniform_loss(self, later: dict[str, Tensor]) -> Tensor:  # [R]
        assert self.rows is not None  # of the epoch's start
        size = self.rows.users.shape[1]
        lo, hi = share(size)
        users, items, labels, weight = (x[:, lo:hi] for x in self.rows)
        network = self.estimator.network("prediction")
        with batch_of(size):
            logit = functional_call(network, later, (users, items))
        e = cross_entropy(logit, labels)
        return batch_sum(weight * e) / batch_sum(weight).clamp(min=1.0)
