"""Propensities that learn from the task: StableDR's constraint, DR-GPL and UMVUE-DR."""

from typing import Any

from torch import Tensor

from upo.core.optim import Hyper
from upo.errors import InputError
from upo.functional.balancing import (
    orthogonality,
    propensity_bias_term,
    propensity_variance_term,
    umvue_terms,
)
from upo.functional.propensity import clip_propensity
from upo.learners.balancing import known_gap
from upo.learners.propensity import PropensityLearner
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.models.neighbours import Neighbours
from upo.pairs import Batch, Pairs

FLOOR = 0.01  # of the density; the public 1e-4 is that of KuaiRec's


class OrthogonalityPenalty:
    r""":math:`\eta\,[\mathrm{mean}_D(1-o/\hat p)(\hat e-\overline{\hat e})]^2`; e_hat is frozen.

    On the clipped propensity that divides, so what holds for it holds for the loss. Held-out rows
    count as observed.

    Source: Li, Zheng, Wu, "StableDR", ICLR 2023. Differs: a squared mean where public code squares
    a sum, so its :math:`\eta` is this one over the squared size of the batch.

    Args:
        eta: Strength, at least 0.
    """

    replayable = True

    reads = ("imputation",)

    def __init__(self, *, eta: Hyper = 1.0) -> None:
        self.eta = Strength(eta, "eta")

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        e_hat = estimator.imputed(pairs).detach()
        clipped = estimator.weighting.p_hat(estimator, pairs)
        return self.eta(orthogonality(clipped, pairs.o, e_hat) ** 2)


def _check_mix(mix: float, name: str) -> float:
    if not 0 <= mix <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {mix}; try 0.7.")
    return mix


def _check_floor(floor: float) -> float:
    if not 0 <= floor < float("inf"):
        raise InputError(f"floor must be at least 0, got {floor}; try 0.01 (of the density).")
    return floor


class GeneralizedPenalty:
    r"""DR-GPL: :math:`\alpha[\lambda\cdot\mathrm{bias}+(1-\lambda)\cdot\mathrm{variance}]` of DR.

    Source: Zhou et al., CIKM 2023, with the erratum: the variance is over :math:`|D|^2`.

    Args:
        alpha: Strength, at least 0.
        mix: :math:`\lambda` in [0, 1].
        per_batch: Divide the variance by the batch's size rather than |D|, as public code does.
        floor: The terms read the propensity as learned, at least this multiple of the density: at
            the clip that divides, the rows that the terms are about would have no gradient. At
            least 0; 0 leaves 1e-6.

    Raises:
        InputError: If ``alpha`` or ``floor`` is negative or ``mix`` out of range.
    """

    replayable = reads_labels = True

    def __init__(
        self,
        *,
        alpha: Hyper = 0.7,
        mix: float = 0.7,
        per_batch: bool = False,
        floor: float = FLOOR,
    ) -> None:
        self.alpha, self.mix, self.per_batch = Strength(alpha, "alpha"), mix, per_batch
        _check_mix(mix, "mix")
        self.floor = _check_floor(floor)

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        gap, o = known_gap(estimator, pairs), pairs.trainable.to(p_hat.dtype)
        p = clip_propensity(p_hat, self.floor * estimator.space.density)
        count = pairs.total if self.per_batch else estimator.space.n_pairs
        bias = propensity_bias_term(p, o, gap)
        variance = propensity_variance_term(p, o, gap, count)
        return self.alpha(self.mix * bias + (1.0 - self.mix) * variance)


class NeighbourPropensityLearner(PropensityLearner):
    r"""UMVUE-DR: p and p² of the bias and variance bounds are estimated from nearest neighbours.

    Cross-entropy on D, plus :math:`\alpha[\lambda\cdot\mathrm{bias}+(1-\lambda)\cdot
    \mathrm{variance}]` on rows of O.

    Source: Zheng et al., "UMVUE-DR", ICDM workshop 2024. Differs: the neighbours come from a
    uniform sample of D, where public code takes O and three times as many random pairs, which
    makes q estimate another propensity; and they are found at each step, not read from a table.

    Args:
        estimator: The networks; ``neighbours`` are ``Neighbours``.
        alpha: Strength, at least 0.
        mix: :math:`\lambda` in [0, 1].
        floor: As of ``GeneralizedPenalty``.
        neighbours: Role of the neighbours.
        representation: Role of the frozen network in whose features pairs are near.
        **settings: See ``PropensityLearner``.

    Raises:
        InputError: If an option is out of range or the neighbours are missing.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        alpha: Hyper = 1.0,
        mix: float = 0.5,
        floor: float = FLOOR,
        neighbours: str = "neighbours",
        representation: str = "representation",
        **settings: Any,
    ) -> None:
        super().__init__(estimator, **settings)
        self.alpha, self.mix = Strength(alpha, "alpha"), _check_mix(mix, "mix")
        self.floor = _check_floor(floor)
        self.neighbours = estimator.network_of(neighbours, Neighbours)
        self.representation = representation

    def on_stage_start(self) -> None:
        """Draw the pairs among which neighbours are found."""
        self.neighbours.place(self.estimator, self.representation)

    def terms(self, batch: Batch, p_hat: Tensor) -> dict[str, Tensor]:  # name -> [R]
        """The penalties and the bounds on rows of O."""
        return {**super().terms(batch, p_hat), "umvue": self._bounds(batch)}

    def _bounds(self, batch: Batch) -> Tensor:  # [R]
        estimator, rows = self.estimator, batch.rows
        q = self.neighbours(estimator.features(self.representation, rows), rows)
        learned = estimator.probability(self.network, rows)
        p = clip_propensity(learned, self.floor * estimator.space.density)
        gap = known_gap(estimator, rows)
        bias, variance = umvue_terms(p, q, self.neighbours.k, gap)
        return self.alpha(self.mix * bias + (1.0 - self.mix) * variance)
