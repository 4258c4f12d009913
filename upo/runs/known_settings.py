"""Settings that no part has: a plus lets Hydra take any, and parts are built much later."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from upo.core.arguments import nearest
from upo.core.console import signals_first
from upo.errors import InputError
from upo.training.plan import StagePlan

PARTS = ("dataset", "protocol", "estimator")
OF_STAGES = ("module", "learners", "first", *(field.name for field in fields(StagePlan)))


def check_settings(config: DictConfig) -> None:
    """Refuse settings that the part they are given to does not take.

    Parts that cannot be imported, or take anything, are left to whoever builds them.

    Args:
        config: Composed configuration.

    Raises:
        InputError: If there is one; it is named with what the part takes.
    """
    for part in PARTS:
        tree = OmegaConf.to_container(config[part], resolve=False)
        _check(tree, part)
    for name, plan in config.estimator.stages.items():
        if plan is not None:
            _known(f"estimator.stages.{name}", list(map(str, plan)), OF_STAGES)


def _check(tree: Any, key: str) -> None:
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for name, inner in items:
        if isinstance(inner, dict | list):
            _check(inner, f"{key}.{name}")
    if isinstance(tree, Mapping) and isinstance(tree.get("_target_"), str):
        taken = _taken(tree["_target_"])
        if taken is not None:
            given = [str(name) for name in tree if not str(name).startswith("_")]
            _known(key, given, [name for name in taken if not name.startswith("_")])


def _taken(target: str) -> list[str] | None:
    """Names of what a part takes; None if it takes any, or is not there."""
    if "${" in target:
        return None
    try:
        with signals_first():
            parameters = inspect.signature(get_object(target)).parameters.values()
    except Exception:  # of whatever the name imports; making the object says what is wrong
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]


def _known(key: str, given: list[str], taken: Any) -> None:
    for name in given:
        if name not in taken:
            settable = list(_settable(taken))
            near = nearest(name, settable)
            meant = f" (did you mean {near}?)" if near else ""
            raise InputError(
                f"{key} has no setting {name}{meant}; it has {', '.join(settable) or 'none'}."
            )


def _settable(taken: Any) -> Iterator[str]:
    """Without what the program itself gives."""
    inside = ("sizes", "purpose", "estimator", "params", "replicas", "module", "network")
    return (name for name in taken if name not in inside)
