"""Learners of kernel balancing (KBIPS, KBDR) and of its adaptive anchors (AKBIPS, AKBDR)."""

from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.core.optim import Hyper, per_replica, placed
from upo.errors import InputError
from upo.functional.kernels import (
    balance_gap,
    balance_hinge,
    balance_noise,
    expansion_loss,
    pair_kernel,
    weight_entropy,
    whitening,
)
from upo.learners.balancing import known_gap
from upo.learners.base import GradientLearner, Logs, Optimizer
from upo.learners.penalty import Strengths
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.models.kernel_weight import AdaptiveAnchors, KernelAnchors
from upo.pairs import Batch, BatchSampler, Pairs


class RepresentationLearner(GradientLearner):
    """Trains a factorisation on observed labels, for its embeddings alone.

    Args:
        estimator: The networks.
        optimizer: Partial optimiser.
        network: Role of the trained network.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        network: str = "representation",
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)

    def update(self, batch: Batch) -> Logs:
        """Descend the mean loss of observed labels."""
        rows, target = batch.rows, self.estimator.space.target
        loss = batch_mean(target.loss(self.estimator.logit(self.network, rows), rows.labels))
        self.step(loss)
        return {"loss": loss.detach()}


class KernelWeightLearner(GradientLearner):
    r"""Fits balancing weights: :math:`\mathrm{mean}_O\,w\log w+\lambda\sum_j\max(0,|g_j|-C)`.

    Source: Li et al., ICLR 2024 (KBIPS, KBDR). Differs: the constant function is among those that
    are balanced, which keeps the mean weight at 1, the hinge takes each gap by itself, and C is a
    multiple of the noise of that gap.

    Args:
        estimator: The networks; its weighting divides density by w.
        optimizer: Partial optimiser.
        strength: :math:`\lambda`, at least 0.
        slack: C in units of ``unit``, at least 0; a number or one for each replica.
        unit: ``noise``, the standard error of each gap in the batch under the present weights, or
            ``one``.
        constant: Balance the constant function too.
        summed: Add the signed gaps before the hinge, as public code does.
        network: Role of the weight network.
        anchors: Role of the anchors.
        representation: Role of the frozen network whose features the kernels compare.
        penalty: Strengths of the penalty on looked-up rows; see ``TablePenalty``.

    Raises:
        InputError: If a number is negative, the unit unknown, gaps of several noises are to be
            added up, or the anchors are missing.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        strength: Hyper = 1.0,
        slack: Hyper = 1.0,
        unit: str = "noise",
        constant: bool = True,
        summed: bool = False,
        network: str = "weight",
        anchors: str = "anchors",
        representation: str = "representation",
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network, penalty=penalty)
        if not bool((torch.as_tensor(slack) >= 0).all()):
            raise InputError(f"slack must be at least 0, got {slack}; try 1.")
        if unit not in ("noise", "one"):
            raise InputError(f"unit of the slack must be noise or one, got {unit!r}.")
        if summed and unit == "noise":
            raise InputError("summed=true adds gaps of different noise; set unit=one beside it.")
        self.strength = Strength(strength, "strength")
        self.slack = per_replica(slack, estimator.space.replicas, "slack")
        self.constant, self.summed, self.unit = constant, summed, unit
        self.anchors = estimator.network_of(anchors, KernelAnchors)
        self.representation = representation
        self.position = 0

    def on_stage_start(self) -> None:
        """Place the anchors in the trained representation."""
        self.anchors.place(self.estimator, self.representation)

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Count steps from the epoch, so a resumed run balances the same anchors."""
        self.position = epoch * sampler.steps_per_epoch()

    def update(self, batch: Batch) -> Logs:
        """Descend; prediction, imputation and representation are frozen."""
        estimator, rows = self.estimator, batch.rows
        index = self.anchors.choose(estimator.space.seeds, self.position)
        self.position += 1
        w = estimator.space.density / estimator.weighting.p_hat(estimator, rows)
        k_o, k_d = self._functions(rows, index), self._functions(batch.pairs, index)
        entropy = weight_entropy(w)
        violation = self.violation(w, k_o, k_d)
        self.step(entropy + self.strength(violation))
        return {"loss": entropy.detach(), "violation": violation.detach()}

    def violation(self, w: Tensor, k_o: Tensor, k_d: Tensor) -> Tensor:
        """Sum of what gaps exceed the slack by ``[R]``; arguments as ``balance_gap``."""
        gap = balance_gap(w, k_o, k_d)
        unit = self.noise(w, k_o, k_d) if self.unit == "noise" else torch.ones_like(gap)
        return balance_hinge(gap, self.allowed(unit), summed=self.summed)

    def noise(self, w: Tensor, k_o: Tensor, k_d: Tensor) -> Tensor:  # [R, J]
        """Standard error of each gap; frozen: weights that vary more are not allowed more."""
        return balance_noise(w.detach(), k_o, k_d)

    def allowed(self, unit: Tensor) -> Tensor:  # [R, J] -> [R, J]
        """The slack in a unit."""
        self.slack = placed(self.slack, unit.device)
        return unit * (self.slack[:, None] if isinstance(self.slack, Tensor) else self.slack)

    def _functions(self, pairs: Pairs, index: Tensor) -> Tensor:  # [R, J or J + 1, B]
        features = self.estimator.features(self.representation, pairs)
        kernels: Tensor = self.anchors(features, index)
        if not self.constant:
            return kernels
        return torch.cat([torch.ones_like(kernels[:, :1]), kernels], dim=1)


class WorstCaseWeightLearner(KernelWeightLearner):
    r"""Fits balancing weights against the worst function of norm 1 that all anchors span.

    Source: Li et al., ICLR 2024 (WKBIPS, WKBDR). Differs: the worst function is solved at each step
    (``upo.functional.kernels.whitening``), not learned; the slack is a multiple of what its gap is
    by chance.

    Args:
        estimator: As ``KernelWeightLearner``.
        ridge: Added to the anchors' kernels with themselves, which are 1; above 0.
        **settings: As ``KernelWeightLearner``.

    Raises:
        InputError: As there, or if the ridge is not positive.
    """

    def __init__(self, estimator: Estimator, *, ridge: float = 1e-3, **settings: Any) -> None:
        super().__init__(estimator, **settings)
        if not 0 < ridge < float("inf"):
            raise InputError(f"ridge of the kernels must be above 0, got {ridge}; try 0.001.")
        if self.summed:
            raise InputError("The worst function has one gap; leave summed=true out.")
        if self.anchors.balanced != self.anchors.count:
            raise InputError(
                "The worst function is one of all anchors; set their n_anchors, not balanced."
            )
        self.ridge = ridge

    def violation(self, w: Tensor, k_o: Tensor, k_d: Tensor) -> Tensor:
        """What the worst function's gap, and that of the constant, exceed the slack by ``[R]``."""
        gap = balance_gap(w, k_o, k_d)
        unit = self.noise(w, k_o, k_d) if self.unit == "noise" else torch.ones_like(gap)
        extra = int(self.constant)
        worst, chance = gap[:, extra:], unit[:, extra:]
        # a root has no slope at 0
        length = worst.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
        one = (
            chance.square().sum(-1, keepdim=True).sqrt() if self.unit == "noise" else chance[:, :1]
        )
        both = torch.cat([gap[:, :extra], length], dim=-1)
        return balance_hinge(both, self.allowed(torch.cat([unit[:, :extra], one], dim=-1)))

    def _functions(self, pairs: Pairs, index: Tensor) -> Tensor:  # [R, J or J + 1, B]
        features = self.estimator.features(self.representation, pairs)
        anchors = self.anchors
        with torch.no_grad():
            own = pair_kernel(
                anchors.features, anchors.features, kind=anchors.kind, gamma=anchors.gamma
            )
            kernels: Tensor = whitening(own, self.ridge) @ anchors(features)
        if not self.constant:
            return kernels
        return torch.cat([torch.ones_like(kernels[:, :1]), kernels], dim=1)


class AnchorLearner(GradientLearner):
    """Expands the error in the anchors' kernels by weighted least squares over O.

    The error is e for IPS, and e - e_hat where the estimator imputes; both are frozen.

    Source: Li et al., ICLR 2024 (AKBIPS, AKBDR).

    Args:
        estimator: The networks; ``anchors`` are ``AdaptiveAnchors``.
        optimizer: Partial optimiser of the coefficients.
        inner_steps: Steps on each batch, at least 1.
        network: Role of the anchors.
        representation: Role of the frozen network whose features the kernels compare.

    Raises:
        InputError: If ``inner_steps < 1`` or the anchors have no coefficients.
    """

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        inner_steps: int = 3,
        network: str = "anchors",
        representation: str = "representation",
    ) -> None:
        super().__init__(estimator, optimizer=optimizer, network=network)
        anchors = estimator.network_of(network, AdaptiveAnchors)
        if inner_steps < 1:
            raise InputError(f"inner_steps must be at least 1, got {inner_steps}; try 3.")
        self.anchors, self.inner_steps, self.representation = anchors, inner_steps, representation

    def on_stage_start(self) -> None:
        """Place the anchors in the trained representation."""
        self.anchors.place(self.estimator, self.representation)

    def update(self, batch: Batch) -> Logs:
        """Take the inner steps; everything but the coefficients is frozen."""
        estimator, rows = self.estimator, batch.rows
        kernels = self.anchors(estimator.features(self.representation, rows))
        target = known_gap(estimator, rows)
        w = estimator.space.density / estimator.p_hat(rows)
        for _ in range(self.inner_steps):
            loss = expansion_loss(target, self.anchors.coefficients, kernels, w)
            self.step(loss)
        return {"loss": loss.detach()}
