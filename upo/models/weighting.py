"""From a propensity network to the clipped propensity that divides."""

from typing import Any, Literal

import torch
from torch import Tensor

from upo.core.optim import Hyper, of_members, per_replica
from upo.errors import InputError
from upo.functional.propensity import clip_propensity, lower_clip
from upo.models.estimator import Estimator
from upo.pairs import Pairs

Auto = Literal["auto"]


class ClippedPropensity:
    """Learned propensity, clipped to ``[p_min, 1 - 1e-6]``.

    Args:
        p_min: Lower clip, at least 0; a number or one for each replica. By default a multiple of
            the density |O| / |D|, the mean propensity: weights density / p_hat are then at most
            1 / p_min on any log. 0 is no clip, but for 1e-6, at which numbers stay finite.
            ``auto`` is half the density, or more where weights by the margins of the log would
            leave it an effective sample size of less than four fifths of its rows.
        relative: Read ``p_min`` as that multiple; otherwise as a propensity in [0, 1]. The field's
            0.05 exceeds the *mean* propensity of sparse data, where almost every weight saturates.
        network: Name of the propensity network.

    Raises:
        InputError: If ``p_min`` is out of range.
    """

    replayable = True

    def __init__(
        self, *, p_min: Hyper | Auto = 0.1, relative: bool = True, network: str = "propensity"
    ) -> None:
        self.relative, self.network = relative, network
        self.p_min: Hyper | None = None  # by the log
        if isinstance(p_min, str) and p_min == "auto":
            return
        try:
            values = torch.as_tensor(p_min)
        except (TypeError, ValueError, RuntimeError):
            values = torch.tensor(torch.nan)
        if not bool((values >= 0).all() and values.isfinite().all()):
            raise InputError(
                f"estimator.weighting.p_min must be at least 0, or auto, got {p_min!r}; try 0.1 "
                "(0 for none)."
            )
        if not relative and bool((values > 1).any()):
            raise InputError(
                f"estimator.weighting.p_min must lie in [0, 1] with relative=false, got {p_min}; "
                "try 0.05, or relative=true for a multiple of the density."
            )
        self.p_min = of_members(p_min)

    def p_hat(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Clipped propensities ``[R, B]``."""
        raw = estimator.probability(estimator.calibrated(self.network), pairs)
        return clip_propensity(raw, self._floor(estimator))

    def floor(self, estimator: Estimator) -> float:
        """Lower clip in use; the mean over replicas where it differs."""
        return float(torch.as_tensor(self._floor(estimator)).mean())

    def roles(self, estimator: Estimator) -> set[str]:
        """Networks that the propensity is computed from."""
        return estimator.behind(estimator.calibrated(self.network))

    def _floor(self, estimator: Estimator) -> float | Tensor:
        if self.p_min is None:
            return lower_clip(estimator.space.clip)
        floor = per_replica(self.p_min, estimator.space.replicas, "estimator.weighting.p_min")
        scale = estimator.space.density if self.relative else 1.0
        if isinstance(floor, float):
            return lower_clip(floor * scale)
        there = (floor * scale).to(estimator.space.keys.device, non_blocking=True)
        return lower_clip(there[:, None])


class ClippedDerived(ClippedPropensity):
    """A clipped propensity that is derived from the learned one, and is what is diagnosed.

    Args:
        network: Role of the derived propensity.
        **clip: ``p_min`` and ``relative`` of ``ClippedPropensity``.
    """

    replayable = True

    def __init__(self, *, network: str, **clip: Any) -> None:
        super().__init__(network=network, **clip)

    def propensity(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Unclipped propensities ``[R, B]``."""
        return estimator.probability(self.network, pairs)
