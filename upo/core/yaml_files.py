"""YAML that a stranger may have written: plain values alone, of bounded size, references followed.

OmegaConf resolves whatever resolver is registered, and again whenever a tree is made anew, so a
reference that is escaped once comes alive later. Here references to other keys of the same tree
are replaced as text and values, and nothing that looks like one is left.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from upo.core.archive import ArchiveError, regular

BYTES = 2**20  # of a file; a run's configuration takes some ten thousand
NODES = 20_000  # after references are followed
DEPTH = 30
TEXT = 4096  # characters of one value
ENVIRONMENT = ("UPO_DATA_DIR", "UPO_CACHE_DIR")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_VARIABLE = re.compile(r"\$\{oc\.env:(\w+),([\w./-]*)\}")


class YamlError(ValueError):
    """The text is no plain YAML, or too much of it."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values as OmegaConf reads them: 1e-3 is a number, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if not pair[0].endswith((":timestamp", ":float", ":int"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes = getattr(self, "nodes", 0) + 1
        if self.check_event(yaml.AliasEvent):
            raise YamlError("it has aliases, which can stand for more than fits")
        event = self.peek_event()
        if self.nodes > NODES or len(getattr(event, "value", "") or "") > TEXT:
            raise YamlError("it has too many or too long values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise YamlError("it has a key twice")
        return found


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]{0,18})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d{1,3})?$|^[-+]?\d+[eE][-+]?\d{1,3}$"
        r"|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The plain values of a file.

    Raises:
        YamlError: If it holds anything else or too much.
        OSError: If it cannot be read.
    """
    try:
        if regular(path) > BYTES:
            raise YamlError(f"it has more than {BYTES} bytes")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (ArchiveError, UnicodeDecodeError) as error:
        raise YamlError("it is no text file") from error


def parse_yaml(text: Any) -> Any:
    """The plain values of a text.

    Raises:
        YamlError: If it holds anything else or too much.
    """
    if not isinstance(text, str) or len(text) > BYTES:
        raise YamlError("it is no text, or too long")
    try:
        tree = yaml.load(text, _Loader)
        _check_plain(tree, 0)
    except YamlError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise YamlError("it is no readable YAML") from error
    return tree


def followed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with each ``${key}`` replaced by what the key holds.

    Raises:
        YamlError: If a reference is of another kind, leads nowhere or to itself, or the tree grows
            beyond its bounds; nothing with a ``${`` is left.
    """
    return _Followed(tree).whole()


class _Followed:
    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree, self._left = tree, NODES

    def whole(self) -> dict[str, Any]:
        return {key: self._value(value, 0) for key, value in self._tree.items()}

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > DEPTH:
            raise YamlError("its references lead to themselves or to too much")
        if isinstance(value, dict):
            return {key: self._value(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner, depth + 1) for inner in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        alone = _REFERENCE.fullmatch(value)
        if alone is not None:
            return self._value(self._at(alone[1]), depth + 1)
        text = _VARIABLE.sub(_variable, value)
        text = _REFERENCE.sub(lambda found: self._text(found[1], depth), text)
        if "${" in text or len(text) > TEXT:
            raise YamlError(f"{value[:60]!r} is no reference to another key")
        return text

    def _text(self, key: str, depth: int) -> str:
        value = self._value(self._at(key), depth + 1)
        if isinstance(value, dict | list):
            raise YamlError(f"{key} is no single value")
        return str(value)

    def _at(self, key: str) -> Any:
        value: Any = self._tree
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise YamlError(f"there is no {key[:60]} to refer to")
            value = value[part]
        return value


def _variable(found: "re.Match[str]") -> str:
    return os.environ.get(found[1], found[2]) if found[1] in ENVIRONMENT else found[0]


def _check_plain(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise YamlError("it is nested too deeply")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise YamlError("a key is no text")
        for inner in value.values():
            _check_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise YamlError(f"it holds a {type(value).__name__}")
