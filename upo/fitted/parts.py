"""What a file may have built: classes of upo that stand where they say, and fit where they are put.

A file names classes and their arguments. Hydra would import whatever is named, and follow
attributes from there: ``upo.data.frames.pd.read_pickle`` starts like a name of ours and is none.
Here a name must be that of a class, defined in one of our own modules under that very name, which
is what its place asks for; its arguments are plain values. Nothing else is looked up or called.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

from torch import nn

from upo.data.datamodule import RatingDataModule
from upo.data.semisynthetic_completion import Completion
from upo.errors import InputError
from upo.evaluation.protocols import Protocol

Fits = Callable[[type], bool]


def _a(*bases: type) -> Fits:
    return lambda kind: issubclass(kind, bases)


def _has(*names: str) -> Fits:
    return lambda kind: all(callable(getattr(kind, name, None)) for name in names)


@dataclass(frozen=True)
class Place:
    """Where something is built.

    Attributes:
        rooms: Packages or modules whose classes may stand there.
        fits: Whether a class does.
        within: Places of arguments that are built, too, by name; ``*`` for any name.
    """

    rooms: tuple[str, ...]
    fits: Fits
    within: tuple[tuple[str, str], ...] = ()


PLACES = {
    "network": Place(("upo.models",), _a(nn.Module), (("*", "weighting"),)),
    "weighting": Place(("upo.models",), _has("p_hat", "floor")),
    "form": Place(("upo.models",), _has("error", "imputed", "regression")),
    "bins": Place(("upo.models",), _has("index", "refresh")),
    "dataset": Place(
        ("upo.data",), _a(RatingDataModule), (("base", "dataset"), ("completion", "completion"))
    ),
    "completion": Place(("upo.data",), _a(Completion)),
    "protocol": Place(("upo.evaluation",), _a(Protocol)),
}


MOVED = {  # places that older files name
    "upo.protocols.Holdout": "upo.evaluation.protocols.Holdout",
    "upo.protocols.MarHoldout": "upo.evaluation.protocols.MarHoldout",
    "upo.protocols.TestSelected": "upo.evaluation.protocols.TestSelected",
    "upo.learners.auto_beta.BetaWindow": "upo.models.beta_window.BetaWindow",
}


class ForeignPartError(InputError):
    """A file names what is not one of our classes for that place."""


def build(place: str, tree: Any) -> Any:
    """Build what a plain tree describes.

    Args:
        place: A key of ``PLACES``.
        tree: ``_target_``, perhaps ``_partial_``, and arguments.

    Raises:
        ForeignPartError: If it names anything but a class of ours that fits.
    """
    rules = PLACES[place]
    if not isinstance(tree, Mapping) or not isinstance(tree.get("_target_"), str):
        raise ForeignPartError(f"has no class for a {place}")
    kind = _class(tree["_target_"], place)
    settings = {key: value for key, value in tree.items() if key not in ("_target_", "_partial_")}
    odd = next((key for key in settings if key.startswith("_") or not key.isidentifier()), None)
    if odd is not None:
        raise ForeignPartError(f"has the key {odd!r} in a {place}")
    inner = dict(rules.within)
    arguments = {
        key: _argument(value, inner.get(key, inner.get("*"))) for key, value in settings.items()
    }
    if place == "network":  # which gets its sizes later, whether the file says so or not
        return partial(kind, **arguments)
    return kind(**arguments)


def _argument(value: Any, place: str | None) -> Any:
    if isinstance(value, Mapping):
        if place is None:
            raise ForeignPartError("has settings within settings")
        return build(place, value)
    if isinstance(value, list | tuple):
        return [_argument(inner, place) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and "${" not in value:
        return value
    raise ForeignPartError(f"holds {str(value)[:60]!r}, which is no plain value")


def _class(target: str, place: str) -> type:
    rules = PLACES[place]
    home, _, name = MOVED.get(target, target).rpartition(".")
    found: Any = None
    if home in _modules(rules.rooms):
        found = vars(import_module(home)).get(name)
    ours = isinstance(found, type) and found.__module__ == home and found.__name__ == name
    if not ours or not rules.fits(found):
        raise ForeignPartError(
            f"would build {target[:100]}, which is no {place} of {' or '.join(rules.rooms)}"
        )
    kind: type = found
    return kind


@cache
def _modules(rooms: tuple[str, ...]) -> frozenset[str]:
    """The modules that lie in the rooms, by their files."""
    names = []
    for room in rooms:
        names.append(room)
        path = getattr(import_module(room), "__path__", [])
        names += [f"{room}.{module.name}" for module in pkgutil.iter_modules(path)]
    return frozenset(names)
