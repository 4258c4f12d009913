"""CSV files read by Arrow in blocks, with the line ends of their cells as they are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

BYTES = 2**22  # of a file read at once, or more where a row is longer
LONGEST = 2**26  # bytes of a row


def csv_blocks(
    path: Path,
    separator: str,
    text: Sequence[str],
    wanted: list[str],
    check: Callable[[list[str]], None],
) -> Iterator[pa.Table]:
    """Columns of a file, block by block; at least one block, if only an empty one.

    Args:
        path: The file.
        separator: Between its cells.
        text: Columns read as text.
        wanted: All columns read; those that are no text are float64.
        check: Gets the names in the header.

    Raises:
        pa.ArrowInvalid: If it is damaged, or a row is longer than ``LONGEST``.
    """
    types = dict.fromkeys(wanted, pa.float64()) | dict.fromkeys(text, pa.string())
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted)
    size, given = BYTES, 0
    while True:
        try:
            options = {"read_options": _reading(size), "parse_options": _parsing(separator)}
            with pyarrow.csv.open_csv(_WholeLineEnds(path), **options) as reader:
                check(reader.schema.names)
            rows = 0
            with pyarrow.csv.open_csv(
                _WholeLineEnds(path), convert_options=convert, **options
            ) as reader:
                for batch in reader:
                    fresh = batch.slice(max(given - rows, 0))  # the rest was given before
                    rows += batch.num_rows
                    if fresh.num_rows:
                        given += fresh.num_rows
                        yield pa.Table.from_batches([fresh])
                if not given:
                    yield reader.schema.empty_table()
            return
        except pa.ArrowInvalid as error:
            size = _larger(size, error)


def csv_table(path: Path, separator: str, text: Sequence[str]) -> pa.Table:
    """All rows and columns, of the types that the whole file shows.

    Args:
        path: The file.
        separator: Between its cells.
        text: Columns read as categories of text, whatever they look like.

    Raises:
        pa.ArrowInvalid: If it is damaged, or a row is longer than ``LONGEST``.
    """
    ids = dict.fromkeys(text, pa.dictionary(pa.int32(), pa.string()))
    size = BYTES
    while True:
        try:
            return pyarrow.csv.read_csv(
                _WholeLineEnds(path),
                read_options=_reading(size),
                parse_options=_parsing(separator),
                convert_options=pyarrow.csv.ConvertOptions(column_types=ids),
            )
        except pa.ArrowInvalid as error:
            size = _larger(size, error)


def _reading(size: int) -> Any:
    # One thread: only then do Arrow's messages name the row.
    return pyarrow.csv.ReadOptions(use_threads=False, block_size=size)


def _parsing(separator: str) -> Any:
    return pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True)


def _larger(size: int, error: pa.ArrowInvalid) -> int:
    """A larger block where a row did not fit into one.

    Raises:
        pa.ArrowInvalid: If the error is another, or the row is too long for any.
    """
    if "straddl" not in str(error):
        raise error
    if size >= LONGEST:
        raise pa.ArrowInvalid(
            f"a row is longer than {LONGEST >> 20} MiB, as where a quote is never closed"
        ) from error
    return min(8 * size, LONGEST)


class _WholeLineEnds:
    r"""A file whose reads never end between ``\r`` and ``\n``.

    Arrow takes a ``\n`` that begins a block for the rest of a line end whose ``\r`` ended the one
    before, and drops it, within quotes as well.
    """

    def __init__(self, path: Path) -> None:
        self._file = pa.input_stream(path, compression="detect", buffer_size=2**16)
        self._held = b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes, ``size`` of them or one fewer; none at the end."""
        data: bytes = self._held + self._file.read(max(size - len(self._held), 1))
        self._held = b""
        if data.endswith(b"\r"):
            following: bytes = self._file.read(1)
            if following:
                data, self._held = data[:-1], b"\r" + following
                if not data:
                    data, self._held = self._held, b""
        return data

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self.closed = True
