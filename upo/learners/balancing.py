"""Parts of estimators whose propensity learns beside the prediction: IPS-V2 and DR-V2.

The public code steps all networks on one summed loss over blocks of random users x random items.
Here the uniform batch of D takes the blocks' place, and each player descends the terms it appears
in, with the others frozen: left together, the propensity would lower e / p_hat by inflating itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.functional.balancing import bmse_loss
from upo.functional.propensity import clip_propensity
from upo.learners.base import Logs, Optimizer
from upo.learners.prediction import Objective, PredictionLearner
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.pairs import Batch, Pairs

PointwiseJoint = Callable[[Tensor, Tensor, Tensor], Tensor]


def _joint_mean(loss: PointwiseJoint, p_logit: Tensor, f_logit: Tensor, pairs: Pairs) -> Tensor:
    """Mean joint loss over D; held-out rows, observed but without a label, count 0."""
    known = pairs.trainable | ~pairs.observed
    value = loss(p_logit, f_logit, pairs.labels)
    return batch_mean(torch.where(known, value, torch.zeros_like(value)))


class JointPenalty:
    r"""The propensity's part of :math:`\alpha\,\mathrm{mean}_D\,\ell(\hat p f,\,o r)`; f is frozen.

    Source: Li et al., ICML 2023 (IPS-V2).

    Args:
        loss: Pointwise loss of (propensity logit, prediction logit, target).
        alpha: Strength, at least 0.
        network: Role of the propensity network.
    """

    replayable = reads_labels = True

    def __init__(
        self, *, loss: PointwiseJoint, alpha: Hyper = 1.0, network: str = "propensity"
    ) -> None:
        self.loss, self.alpha, self.network = loss, Strength(alpha, "alpha"), network

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        f_logit = estimator.logit("prediction", pairs).detach()
        p_logit = estimator.logit(self.network, pairs)
        return self.alpha(_joint_mean(self.loss, p_logit, f_logit, pairs))


class JointTerm:
    r"""The prediction's part of the joint term of ``JointPenalty``; p_hat is frozen.

    Args:
        loss: Pointwise loss of (propensity logit, prediction logit, target).
        alpha: Strength relative to the objective, at least 0.
        network: Role of the propensity network.
    """

    replayable = reads_labels = True

    def __init__(
        self, *, loss: PointwiseJoint, alpha: Hyper = 1.0, network: str = "propensity"
    ) -> None:
        self.loss, self.alpha, self.network = loss, Strength(alpha, "alpha"), network

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The term ``[R]``."""
        pairs = batch.pairs
        p_logit = estimator.logit(self.network, pairs).detach()
        f_logit = estimator.logit("prediction", pairs)
        return self.alpha(_joint_mean(self.loss, p_logit, f_logit, pairs))


class BalancePenalty:
    r""":math:`\gamma\cdot\mathrm{BMSE}` of the propensity; the balanced feature is f, frozen.

    Source: Li et al., ICML 2023 (IPS-V2). Differs: the official code lets the gradient reach f,
    which lowers the penalty by shrinking the predictions.

    Args:
        gamma: Strength, at least 0.
        p_min: The propensity is read inside [p_min, 1 - p_min]; in (0, 0.5).
        squares: ``plain`` squares the mean of a batch, as official code, noise included;
            ``unbiased`` estimates the square of the mean.

    Raises:
        InputError: If ``p_min`` is out of range, or ``squares`` unknown.
    """

    replayable = True

    def __init__(self, *, gamma: Hyper = 1.0, p_min: float = 1e-3, squares: str = "plain") -> None:
        if not 0 < p_min < 0.5:
            raise InputError(f"balance p_min must lie in (0, 0.5), got {p_min}; try 0.001.")
        if squares not in ("plain", "unbiased"):
            raise InputError(f"balance squares must be plain or unbiased, got {squares!r}.")
        self.gamma, self.p_min = Strength(gamma, "gamma"), p_min
        self.unbiased = squares == "unbiased"

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        phi = estimator.share(pairs).detach()
        return self.imbalance(pairs, p_hat, phi)

    def imbalance(self, pairs: Pairs, p_hat: Tensor, phi: Tensor) -> Tensor:  # [R]
        r""":math:`\gamma\cdot\mathrm{BMSE}` of a feature."""
        inside = clip_propensity(p_hat, self.p_min).clamp(max=1.0 - self.p_min)
        return self.gamma(bmse_loss(inside, pairs.o, phi, unbiased=self.unbiased))


class BalanceTerm:
    """The prediction's part of the balancing penalty; p_hat is frozen (``variant=joint_grad``).

    Descended by the official IPS-V2 and DR-V2 code, which freezes nothing: predictions that shrink
    lower the imbalance. Off by default.

    Args:
        balance: The penalty.
    """

    replayable = True

    def __init__(self, *, balance: BalancePenalty) -> None:
        self.balance = balance

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The term ``[R]``."""
        p_hat = estimator.propensity(batch.pairs).detach()
        phi = estimator.share(batch.pairs)
        return self.balance.imbalance(batch.pairs, p_hat, phi)


class InverseErrorPenalty:
    r"""The debiased loss in the propensity, :math:`\beta\,\mathrm{mean}_D\,o(e-\hat e)/\hat p`.

    Part of the one loss that the official IPS-V2 and DR-V2 code gives to every network; off by
    default, since it rewards inflating the propensities of rows that are predicted badly.

    Args:
        beta: Strength, at least 0.
    """

    replayable = reads_labels = True

    def __init__(self, *, beta: Hyper = 1.0) -> None:
        self.beta = Strength(beta, "beta")

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        gap = known_gap(estimator, pairs)
        return self.beta(batch_mean(gap / estimator.weighting.p_hat(estimator, pairs)))


def known_gap(estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
    """Frozen e - e_hat (e where nothing is imputed) of training rows; 0 elsewhere."""
    gap = estimator.errors(pairs)
    if estimator.has_imputation:
        gap = gap - estimator.imputed(pairs)
    return torch.where(pairs.trainable, gap, torch.zeros_like(gap)).detach()


class RegularizedPredictionLearner(PredictionLearner):
    """Descends an objective plus further terms in the prediction network.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        objective: The estimator of the ideal loss.
        terms: Name -> term added to it.
        **learner: See ``PredictionLearner``.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        objective: Objective,
        terms: dict[str, Objective],
        **learner: Any,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, objective=objective, **learner)
        self.terms = dict(terms)
        for term in self.terms.values():
            estimator.check_reads(term)

    def update(self, batch: Batch) -> Logs:
        """Descend; propensity and imputation are frozen."""
        total = self.objective(self.estimator, batch)
        logs = {"loss": total.detach()}
        for name, term in self.terms.items():
            value = term(self.estimator, batch)
            logs[name] = value.detach()
            total = total + value
        self.step(total, self.importance(batch))
        return logs
