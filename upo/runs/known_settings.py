"""Settings that no part has, and text where a part takes a number.

A plus lets Hydra take any key, a key any text, and parts are built much later.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from upo.core.arguments import nearest
from upo.core.console import signals_first
from upo.errors import InputError
from upo.training.plan import StagePlan

PARTS = ("dataset", "protocol", "estimator")
OURS = "upo."  # modules whose classes hand ** to their bases and nowhere else
OF_STAGES = ("module", "learners", "first", *(field.name for field in fields(StagePlan)))


def check_settings(config: DictConfig) -> None:
    """Refuse settings and kinds of values that the part they are given to does not take.

    Parts that cannot be imported, or take anything, are left to whoever builds them.

    Args:
        config: Composed configuration.

    Raises:
        InputError: If there is one; it is named with what the part takes.
    """
    for part in PARTS:
        for key, tree, taken in _parts(OmegaConf.to_container(config[part], resolve=False), part):
            given = [str(name) for name in tree if not str(name).startswith("_")]
            if not any(each.kind is each.VAR_KEYWORD for each in taken):
                _known(key, given, [each.name for each in taken if not each.name.startswith("_")])
            for each in taken:
                if each.name in given and not (tree[each.name] is None and each.default is None):
                    _check_value(f"{key}.{each.name}", tree[each.name], each.annotation, config)
    for name, plan in config.estimator.stages.items():
        if plan is not None:
            _known(f"estimator.stages.{name}", list(map(str, plan)), OF_STAGES)
            for field in fields(StagePlan):
                if field.name in plan:
                    key = f"estimator.stages.{name}.{field.name}"
                    _check_value(key, plan[field.name], field.type, config)


def by_replica(config: DictConfig) -> list[str]:
    """Settings with a value for each replica, where a part also takes one for all."""
    tree = OmegaConf.to_container(config.estimator, resolve=False)
    found = [
        listed
        for key, settings, taken in _parts(tree, "estimator")
        for each in taken
        if each.name in settings
        for listed in _listed(_given(f"{key}.{each.name}", config), each.annotation, config)
    ]
    return list(dict.fromkeys(found))


def _listed(key: str, hint: Any, config: DictConfig) -> list[str]:
    """The setting, or those in it, that is a list where a number would do."""
    value = OmegaConf.select(config, key)
    if isinstance(value, ListConfig) and _fits(0.5, hint):
        return [key]
    if isinstance(value, DictConfig) and _fits({"": 0.5}, hint):
        return [f"{key}.{name!s}" for name in value if isinstance(value[name], ListConfig)]
    return []


def _parts(tree: Any, key: str) -> Iterator[tuple[str, Mapping[Any, Any], list[inspect.Parameter]]]:
    """Every part in a tree of settings, inner ones first: its key, its settings, what it takes."""
    for name, inner in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if isinstance(inner, dict | list):
            yield from _parts(inner, f"{key}.{name}")
    if isinstance(tree, Mapping) and isinstance(tree.get("_target_"), str):
        yield key, tree, _taken(tree["_target_"])


def _taken(target: str) -> list[inspect.Parameter]:
    """What a part takes; anything if it is not there."""
    anything = [inspect.Parameter("_", inspect.Parameter.VAR_KEYWORD)]
    if "${" in target:
        return anything
    try:
        with signals_first():
            called = get_object(target)
            return _inherited(called) if isinstance(called, type) else _parameters(called)
    except Exception:  # of whatever the name imports; making the object says what is wrong
        return anything


def _parameters(called: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(called, eval_str=True)
    except NameError:  # a name that is there for type checkers alone
        found = inspect.signature(called)
    return list(found.parameters.values())


def _inherited(part: type) -> list[inspect.Parameter]:
    """What a class takes, where it hands ``**`` to its base what that takes, too."""
    found = _parameters(part)
    bases = iter(base for base in part.__mro__[1:] if "__init__" in vars(base))
    while part.__module__.startswith(OURS) and any(x.kind is x.VAR_KEYWORD for x in found):
        part = next(bases)
        if not part.__module__.startswith(OURS):
            break
        known = {x.name for x in found}
        more = [x for x in _parameters(part) if x.name not in known]
        found = [x for x in found if x.kind is not x.VAR_KEYWORD] + more
    return found


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")


def _check_value(key: str, value: Any, hint: Any, config: DictConfig) -> None:
    """Refuse a value of another kind than an annotation names.

    Raises:
        InputError: If it is one.
    """
    if isinstance(value, str) and "${" in value:
        try:
            value = OmegaConf.select(config, key)
        except OmegaConfBaseException:
            return  # said when it is looked up
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=False)
    if not _fits(value, hint):
        allowed = ", or ".join(dict.fromkeys(_words(hint)))
        shown = "null" if value is None else f"{value!r:.60}"
        raise InputError(f"{_given(key, config)} must be {allowed}, got {shown}.")


def _given(key: str, config: DictConfig) -> str:
    """The key that a value was given to, where others refer to it."""
    above, _, last = key.rpartition(".")
    parent = OmegaConf.to_container(OmegaConf.select(config, above), resolve=False)
    value = parent.get(last) if isinstance(parent, dict) else None
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return key if found is None else _given(found[1], config)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a file's value is of an annotated kind; of kinds that no file has, any is."""
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(value, str) and "${" in value:  # within a list
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    if origin in (list, Sequence) and inner:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if origin in (dict, Mapping) and inner:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if hint is type(None):
        return value is None
    if hint is Tensor:
        return False
    if hint not in WORDS:
        return True
    if hint is bool:
        return value is True or value is False or (type(value) is int and value in (0, 1))
    if isinstance(value, bool):
        return False
    return isinstance(value, (str, int) if hint is str else (int, float) if hint is float else int)


def _words(hint: Any) -> Iterator[str]:
    """What an annotation allows, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for part in inner:
            yield from _words(part)
    elif origin is Literal:
        yield from map(str, inner)
    elif origin in (list, Sequence):
        yield f"a list (each {' or '.join(_words(inner[0]))})"
    elif origin in (dict, Mapping):
        yield f"keys (each {' or '.join(dict.fromkeys(_words(inner[1])))})"
    elif hint is type(None):
        yield "null"
    elif hint in WORDS:
        yield WORDS[hint]


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
