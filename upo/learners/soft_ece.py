"""Penalties on the differentiable calibration error (DECE) of mixed probabilities."""

import math
from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_sum
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.functional.calibration import looked_ahead, public_soft_ece, soft_bins, soft_ece
from upo.learners.strength import Strength
from upo.models.derived import Mixture
from upo.models.estimator import Estimator
from upo.pairs import ObservedPairs, Pairs


class _SoftECE:
    """A multiple of the differentiable calibration error over fixed soft bins.

    Args:
        strength: Multiple, at least 0; a number or one for each replica.
        num_bins: Soft bins, at least 1.
        span: Reach of their centres on either side, in units of the logit, positive.
        dece: ``mean`` (an error of rates, whatever the batch) or ``public`` (public code's sums,
            which grow with the batch; its strengths are not those of ``mean``).

    Raises:
        InputError: If a number is out of range or ``dece`` unknown.
    """

    def __init__(
        self, *, strength: Hyper, num_bins: int = 10, span: float = 3.0, dece: str = "mean"
    ) -> None:
        if dece not in ("mean", "public"):
            raise InputError(f"dece must be 'mean' or 'public', got {dece!r}.")
        if num_bins < 1 or not span > 0:
            raise InputError(f"Soft bins need num_bins >= 1, span > 0; got {num_bins}, {span}.")
        self.times = Strength(strength, "strength of the soft ECE")
        self.num_bins, self.span = num_bins, span
        self.public = dece == "public"

    def bins(self, logit: Tensor, middle: float) -> Tensor:  # [R, B] -> [R, B, M]
        """Membership in the soft bins."""
        return soft_bins(logit, self.num_bins, middle, self.span)


class LookAheadECE(_SoftECE):
    """Calibration error of mixed propensities whose mixture is looked ahead by one step.

    Args:
        mixture: Role of the mixture.
        lr: Rate of the step that is looked ahead, at least 0.
        **bins: See above.
    """

    replayable = True

    def __init__(self, *, mixture: str = "propensity", lr: float = 0.05, **bins: Any) -> None:
        super().__init__(**bins)
        self.mixture, self.lr = mixture, lr

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``, with the graph to the members."""
        mixture = estimator.network_of(self.mixture, Mixture)
        logits = mixture.members(estimator, pairs)
        alpha = looked_ahead(mixture.alpha.detach(), logits, pairs.o, self.lr)
        logit = mixture.mix(logits, alpha)
        density = min(estimator.space.density, 1 - 1e-6)
        membership = self.bins(logit, math.log(density / (1 - density)))
        error = public_soft_ece if self.public else soft_ece
        return self.times(error(torch.sigmoid(logit), pairs.o, membership))


class PseudoLabelECE(_SoftECE):
    """Calibration error of pseudo-labels against labels, both weighted by inverse propensities.

    With ``dece: public`` it is public code's: errors of the frozen prediction over the sum of the
    inverse propensities stand in the place of the labels.

    Args:
        network: Role of the imputation that is calibrated.
        **bins: See above.
    """

    replayable = True

    def __init__(self, *, network: str = "imputation", **bins: Any) -> None:
        super().__init__(**bins)
        self.network = network

    def __call__(self, estimator: Estimator, rows: ObservedPairs) -> Tensor:
        """The penalty ``[R]``, with the graph to the imputation networks."""
        logit = estimator.logit(self.network, rows)
        y, membership, weight = (
            torch.sigmoid(logit),
            self.bins(logit, 0.0),
            1.0 / estimator.p_hat(rows),
        )
        if not self.public:
            return self.times(soft_ece(y, rows.labels, membership, weight))
        errors = estimator.errors(rows).detach()
        return self.times(public_soft_ece(y, errors, membership, batch_sum(weight)))
