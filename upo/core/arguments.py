"""Command lines of ``key=value`` arguments, checked against a dataclass."""

import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from upo.errors import InputError

T = TypeVar("T")
_WORDS = {"true": True, "false": False}


def parse(kind: type[T], argv: list[str], usage: str) -> T:
    """Arguments as a dataclass whose fields are text, numbers, true or false, some optional.

    Args:
        kind: The dataclass; a field without a default must be given.
        argv: ``key=value`` words; ``--help`` prints the usage and ends the process.
        usage: What ``--help`` prints.

    Raises:
        InputError: If a word is unknown, repeated, missing or of the wrong type.
    """
    if any(word in ("-h", "--help", "help") for word in argv):
        sys.stdout.write(usage.strip() + "\n")
        raise SystemExit(0)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for word in argv:
        key, equals, text = word.partition("=")
        if not equals or key not in known:
            raise InputError(
                f"{word!r} is not understood; write key=value, where the keys are "
                f"{', '.join(known)}."
            )
        if key in values:
            raise InputError(f"{key} is given more than once; keep one.")
        values[key] = _value(key, text, str(known[key].type))
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise InputError(f"{name}= is missing; the usage is:{_first(usage)}")
    return kind(**values)


def _value(key: str, text: str, kind: str) -> Any:
    """A word as what the annotation of its field says."""
    if "None" in kind and text in ("null", ""):
        return None
    if "bool" in kind:
        if text.lower() not in _WORDS:
            raise InputError(f"{key} must be true or false, got {text!r}; mend it.")
        return _WORDS[text.lower()]
    if "int" in kind or "float" in kind:
        whole = "float" not in kind
        try:
            return int(text) if whole else float(text)
        except ValueError as error:
            number = "a whole number" if whole else "a number"
            raise InputError(f"{key} must be {number}, got {text!r}; mend it.") from error
    if not text:
        raise InputError(f"{key} is empty; give a value or leave it out.")
    return Path(text) if "Path" in kind else text


def _first(usage: str) -> str:
    """The first command of a usage text."""
    lines = (line.strip() for line in usage.splitlines())
    return " " + next((line for line in lines if "=" in line), "key=value")
