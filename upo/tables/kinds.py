"""What can be an id: whole numbers and text; everything else is turned into these, or refused.

A table may call a user 7, 7.0, "7" or a day. Whatever can be asked for again by value is kept as
int64 or as text: whole floats are numbers (-0.0 is 0), days and times are ISO text, true and false
are words. Fractions, durations, lists and floats that no longer tell neighbours apart are refused
when they are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WHOLE_NUMBER = r"^((0|-?[1-9][0-9]{0,17})(\.0+)?|-0\.0+)$"
_EXACT = {"halffloat": 2**11, "float": 2**24, "double": 2**53}  # whole numbers up to here are exact


class NoIdError(ValueError):
    """A column holds what cannot be an id; the message says what."""


def plain_ids(values: pa.Array) -> pa.Array:
    """Ids as int64 or large text; a missing one stays missing.

    Raises:
        NoIdError: If they are neither and cannot be turned into either by value.
    """
    kind, types = values.type, pa.types
    if types.is_int64(kind) or types.is_large_string(kind):
        return values
    if types.is_integer(kind):
        big = types.is_uint64(kind) and (pc.max(values).as_py() or 0) >= 2**63
        return values.cast(pa.large_string() if big else pa.int64())
    if types.is_floating(kind):
        return _whole_floats(values)
    if types.is_null(kind):
        return pa.nulls(len(values), pa.int64())
    if types.is_decimal(kind):
        return _whole_decimals(values)
    if types.is_timestamp(kind):
        text = values.cast(pa.large_string())
        return pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0+|\.0+", r"\1")
    known = (
        types.is_string(kind), types.is_boolean(kind), types.is_date(kind), types.is_time(kind),
        types.is_binary(kind), types.is_large_binary(kind), str(kind) == "string_view",
    )  # fmt: skip
    if not any(known):
        raise NoIdError(f"holds {str(kind)[:60]}, which cannot be an id")
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise NoIdError("holds bytes that are no text, which cannot be an id") from error


def as_whole_numbers(ids: Any) -> Any:
    """Text (an Arrow array, chunked or not) as int64 where every id is a plain whole number."""
    text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    if not text or not pc.all(pc.match_substring_regex(ids, WHOLE_NUMBER)).as_py():
        return ids
    return pc.replace_substring_regex(ids, r"\.0+$", "").cast(pa.int64())


def by_value(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ids of text as the numbers that they spell, -1 never among them; None where they do not.

    Args:
        ids: Objects of text.

    Returns:
        Objects: int where the text is a plain whole number, else None.
    """
    text = pa.array(ids, pa.large_string())
    spelled = pc.match_substring_regex(text, WHOLE_NUMBER).to_numpy(zero_copy_only=False)
    found = np.full(len(ids), None, dtype=object)
    if spelled.any():
        numbers = pc.replace_substring_regex(text.filter(pa.array(spelled)), r"\.0+$", "")
        found[spelled] = numbers.cast(pa.int64()).to_numpy().astype(object)
    return found


def _whole_floats(values: pa.Array) -> pa.Array:
    name = str(values.type)
    numbers = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    there = ~np.isnan(numbers)
    known = numbers[there]
    with np.errstate(invalid="ignore"):
        odd = known[known != np.floor(known)]
    if len(odd) or np.isinf(known).any():
        first = odd[0] if len(odd) else known[np.isinf(known)][0]
        raise NoIdError(f"holds {first:g}, a number with a fraction, which cannot be an id")
    exact = _EXACT[name]
    if len(known) and np.abs(known).max() >= exact:
        raise NoIdError(
            f"holds {name} numbers of {exact:,} and more, where neighbours are one and the same, "
            "which cannot be an id"
        )
    whole = np.where(there, numbers, 0).astype(np.int64)
    return pa.array(whole, mask=~there)


def _whole_decimals(values: pa.Array) -> pa.Array:
    text = pc.replace_substring_regex(values.cast(pa.large_string()), r"\.0+$", "")
    if not pc.all(pc.match_substring_regex(text.drop_null(), r"^-?[0-9]+$")).as_py():
        raise NoIdError("holds numbers with fractions, which cannot be an id")
    small = pc.all(pc.less(pc.utf8_length(text.drop_null()), 19)).as_py()
    return text.cast(pa.int64()) if small is not False else text
