"""Nested settings by dotted key."""

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a tree that is no mapping.

    Args:
        tree: Mappings within mappings.
        prefix: In front of every key.

    >>> dict(dotted({"a": 1, "b": {"c": [2], "d": {}}}))
    {'a': 1, 'b.c': [2]}
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
