"""Reading columns of numbers from text files, with one clear sentence for whatever is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import torch
from torch import Tensor

from upo.errors import InputError

_SPACES = r"\s+"


def require(folder: Path, names: Sequence[str], how: str) -> None:
    """Raise unless the folder holds the named files.

    Args:
        folder: Where they should be.
        names: File names relative to it.
        how: How to get them, as the end of a sentence.

    Raises:
        InputError: If one is missing or empty.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {' and '.join(missing)}; {how}.")
    for name in names:
        if not (folder / name).stat().st_size:
            raise InputError(f"{folder / name} is empty (0 bytes), as after a broken copy; {how}.")


def read_columns(
    path: Path,
    columns: dict[str, type[int] | type[float]],
    *,
    separator: str = ",",
    header: bool = False,
) -> dict[str, Tensor]:
    """Read columns of numbers, whole files at C speed.

    Args:
        path: A text file, one row for each line, LF or CRLF.
        columns: Name and type of each column: in the order of the file and all of them without a
            header, otherwise those wanted.
        separator: One character.
        header: Whether the first line names the columns.

    Returns:
        For each name an [N] tensor, int64 or float64 (correctly rounded).

    Raises:
        InputError: If the file is not that; the sentence names the file and the first bad line.
    """
    types = {name: pa.int64() if kind is int else pa.float64() for name, kind in columns.items()}
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=None if header else list(columns)),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=list(columns), null_values=[]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:  # the complaint finds the line
        raise _complaint(path, separator, columns, header) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    rows = {name: torch.from_numpy(table[name].to_numpy().copy()) for name in columns}
    if not table.num_rows or not all(bool(torch.isfinite(row).all()) for row in rows.values()):
        raise _complaint(path, separator, columns, header)
    return rows


def read_matrix(path: Path) -> Tensor:  # [rows, columns] float64
    """Read a rectangular table of numbers divided by spaces.

    Raises:
        InputError: If a line is shorter or longer than the first or holds something else.
    """
    try:
        frame = pd.read_csv(path, sep=_SPACES, header=None, keep_default_na=False, low_memory=False)
    except ValueError as error:  # parser, encoding and empty-file errors alike
        raise _complaint(path, _SPACES, None, False) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not all(d.kind in "if" for d in frame.dtypes) or frame.isna().any(axis=None):
        raise _complaint(path, _SPACES, None, False)
    return torch.from_numpy(frame.to_numpy(np.float64, copy=True))


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be read ({error.strerror or error}); fix the path or its permissions."
    )


def _complaint(
    path: Path,
    separator: str,
    columns: dict[str, type[int] | type[float]] | None,
    header: bool,
) -> InputError:
    """Find the first bad line; slow, but only ever run on a damaged file."""
    fix = "restore the file from its source"
    names = list(columns) if columns else None
    width = len(names) if names else None
    wanted: dict[int, str] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.decode("latin-1").strip("\r\n")
            if not line.strip():
                continue
            cells = line.split() if separator == _SPACES else line.split(separator)
            if header and not wanted:
                absent = [name for name in names or [] if name not in cells]
                if absent:
                    return InputError(
                        f"{path}, line {number}: no column {' or '.join(absent)} among "
                        f"{_shown(line)}; {fix} or rename its columns."
                    )
                wanted = {k: name for k, name in enumerate(cells) if name in (names or [])}
                width = len(cells)
                continue
            width = width or len(cells)
            if len(cells) != width:
                return InputError(
                    f"{path}, line {number}: {width} columns expected, found {len(cells)} in "
                    f"{_shown(line)}; {fix}."
                )
            for place, cell in enumerate(cells):
                name = wanted.get(place) if header else names[place] if names else "value"
                if name is None:
                    continue
                whole = columns is not None and columns[name] is int
                if not _is_number(cell, whole):
                    kind = "a whole number" if whole else "a number"
                    return InputError(
                        f"{path}, line {number}: the {name} {_shown(cell)} is not {kind}; {fix}."
                    )
    return InputError(f"{path} holds no rows that can be read as numbers; {fix}.")


def _is_number(cell: str, whole: bool) -> bool:
    if whole:
        return re.fullmatch(r"\s*[-+]?\d{1,18}\s*", cell) is not None
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
