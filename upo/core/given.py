"""What a person hands to a function of Python: flags, names of columns and places of files."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from upo.errors import InputError


def flag(name: str, value: Any) -> bool:
    """A flag as it is meant: text such as ``"no"`` would count as true.

    Raises:
        InputError: If it is neither true nor false.
    """
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise InputError(f"{name} must be True or False, got {value!r:.60}.")
    return plain


def whole(name: str, value: Any, least: int, example: int) -> int:
    """A whole number, also one of numpy's, or ``1e5``.

    Raises:
        InputError: If it is none, or below ``least``.
    """
    plain = _plain(value)
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    if type(plain) is not int or plain < least:
        raise InputError(
            f"{name} must be a whole number of at least {least}, got {value!r:.60}; try {example}."
        )
    return plain


def listed(name: str, value: Any) -> list[Any]:
    """One name, or several, as a list.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise InputError(f"{name} must be a name or a list of names, got {value!r:.60}.")
    return list(value)


def column_names(optional: Mapping[str, Any] | None = None, **names: Any) -> None:
    """Refuse what cannot be the name of a column; a number is told with what the columns are.

    Args:
        optional: By argument, those that may be None.
        **names: By argument.

    Raises:
        InputError: If one is neither text nor a number.
    """
    given = {key: name for key, name in (optional or {}).items() if name is not None}
    for argument, name in (names | given).items():
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(
                f"{argument} must be the name of a column, as text, got "
                f"{'None' if name is None else type(name).__name__}."
            )


def path_of(what: str, given: Any) -> Path:
    """A place of files.

    Args:
        what: What error sentences call it.
        given: Text or a path.

    Raises:
        InputError: If it is neither, or empty, as from a variable that is not set.
    """
    if isinstance(given, str) and not given.strip():
        raise InputError(f"{what} is empty, as from a variable that is not set; name it.")
    try:
        return Path(os.fsdecode(given))
    except TypeError as error:
        raise InputError(
            f"{what} must be a path, as text or a Path, got {type(given).__name__}."
        ) from error


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
