"""Debiased recommendation with unified propensity optimization.

``import upo`` alone is cheap: torch and the rest are imported when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upo import losses, metrics
    from upo.api import fit, tune
    from upo.audit import audit  # type: ignore[no-redef, unused-ignore]  # also a module
    from upo.audit.repair import repair
    from upo.counterfactual import HeldOut, evaluate, held_out
    from upo.errors import (
        DoubtfulEstimateWarning,
        FailedSeedsWarning,
        InputError,
        RareLabelsWarning,
        UnseenIdsWarning,
        UselessModelWarning,
        UselessWeightsWarning,
    )
    from upo.fitted import Fitted, NotFittedError, load
    from upo.propensity import Propensity

__version__ = "0.1.0"  # the package's, too: pyproject.toml reads it here
__all__ = [
    "DoubtfulEstimateWarning",
    "FailedSeedsWarning",
    "Fitted",
    "HeldOut",
    "InputError",
    "NotFittedError",
    "Propensity",
    "RareLabelsWarning",
    "UnseenIdsWarning",
    "UselessModelWarning",
    "UselessWeightsWarning",
    "audit",  # a package that can be called
    "evaluate",
    "fit",
    "held_out",
    "load",
    "losses",
    "metrics",
    "repair",
    "tune",
]
_HOMES = {
    "DoubtfulEstimateWarning": "upo.errors",
    "FailedSeedsWarning": "upo.errors",
    "Fitted": "upo.fitted",
    "HeldOut": "upo.counterfactual",
    "InputError": "upo.errors",
    "NotFittedError": "upo.fitted",
    "Propensity": "upo.propensity",
    "RareLabelsWarning": "upo.errors",
    "UnseenIdsWarning": "upo.errors",
    "UselessModelWarning": "upo.errors",
    "UselessWeightsWarning": "upo.errors",
    "evaluate": "upo.counterfactual",
    "fit": "upo.api",
    "held_out": "upo.counterfactual",
    "load": "upo.fitted",
    "repair": "upo.audit.repair",
    "tune": "upo.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"upo.{name}")
    raise AttributeError(f"module 'upo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
