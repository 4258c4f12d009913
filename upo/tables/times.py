"""Columns of times: numbers, dates, timestamps, or text that spells one of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from upo.errors import InputError, visible

NUMBER, MOMENT = "numbers", "dates"


class Times:
    """Times of one block after another, as numbers that sort as they do.

    Dates and timestamps become microseconds since 1970; numbers stay what they are.

    Args:
        name: Name of the column.
        source: What error sentences call the rows.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source
        self._parts: list[np.ndarray[Any, Any]] = []
        self._kind: str | None = None

    def add(self, block: pa.Array) -> None:
        """Take a block; empty cells may be NaN here.

        Raises:
            InputError: If a cell is no time, or numbers and dates are mixed.
        """
        if pa.types.is_dictionary(block.type):
            block = block.dictionary_decode()
        kind, values = self._read(block)
        if len(values) == int(np.isnan(values).sum()):
            kind = self._kind or kind  # nothing but empty cells, which another sentence refuses
        if self._kind not in (None, kind):
            raise InputError(
                f"{self.source}: the column {self.name} holds both numbers and dates; give one "
                "kind of time."
            )
        self._kind = kind
        if np.isinf(values).any():
            raise InputError(
                f"{self.source}: the column {self.name} holds an infinite number, which is no "
                "time; fix or remove the row."
            )
        self._parts.append(values)

    def result(self) -> Tensor:
        """``[N]`` float64."""
        return torch.from_numpy(np.concatenate([np.zeros(0), *self._parts]))

    def _read(self, block: pa.Array) -> tuple[str, np.ndarray[Any, Any]]:
        types, kind = pa.types, block.type
        if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
            text = pc.utf8_trim_whitespace(block.cast(pa.large_string()))
            text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)
            moment = pc.replace_substring_regex(text, r"([:][0-9]{2}\.[0-9]{6})[0-9]+", r"\1")
            for to, found in ((pa.float64(), NUMBER), (pa.timestamp("us"), MOMENT)):
                try:
                    return found, self._numbers((text if found == NUMBER else moment).cast(to))
                except pa.ArrowInvalid:
                    continue
            try:
                return MOMENT, self._numbers(moment.cast(pa.timestamp("us", tz="UTC")))
            except pa.ArrowInvalid as error:
                raise InputError(self._wrong(pc.drop_null(text)[0].as_py())) from error
        if types.is_date(kind) or types.is_timestamp(kind):
            return MOMENT, self._numbers(block.cast(_microseconds(kind), safe=False))
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
            return NUMBER, self._numbers(block.cast(pa.float64(), safe=False))
        if types.is_null(kind):
            return NUMBER, np.full(len(block), np.nan)
        raise InputError(self._wrong(str(kind)))

    @staticmethod
    def _numbers(values: pa.Array) -> np.ndarray[Any, Any]:
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(numbers, dtype=np.float64)

    def _wrong(self, what: str) -> str:
        return (
            f"{self.source}: the column {self.name} holds {visible(what, 40)!r}, which is no time; "
            "give numbers, dates such as 2024-01-31 or timestamps such as 2024-01-31 12:00:00."
        )


def _microseconds(kind: pa.DataType) -> pa.DataType:
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    return pa.timestamp("us", tz=zone)
