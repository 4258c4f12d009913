"""CSV and Parquet files read block by block, as they are."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from upo.errors import InputError
from upo.tables.csv_blocks import csv_blocks, csv_table
from upo.tables.frames import first_line
from upo.tables.parts import parts

ROWS = 2**17  # of a Parquet file read at once
BLOWN_UP = 100  # times its size that a Parquet file may declare, in rows or bytes, beyond 16 MiB
CSV = {".csv": ",", ".tsv": "\t", ".txt": ","}  # each also with .gz behind it
PARQUET = (".parquet", ".pq")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_COMMA = re.compile(r"invalid value '-?\d+,\d+'")  # a number with a decimal comma
_DAMAGE = (pa.ArrowException, UnicodeError, OSError, EOFError, gzip.BadGzipFile, zlib.error)
_USAGE = "rename them, or name yours as the usage says (--help)"


def read_blocks(
    path: Path,
    key: str,
    text: Sequence[str],
    extra: Sequence[str] = (),
    *,
    remedy: str = _USAGE,
) -> Iterator[pa.Table]:
    """Columns of a file, block by block; at least one block, if only an empty one.

    Every reader of tables comes here: line ends within quotes belong to their cell wherever a
    block ends, and an empty cell of text stays an empty text.

    Args:
        path: The file, CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) or Parquet; or several, as
            ``parts`` takes them.
        key: What error sentences call it.
        text: Columns that a CSV file gives as text: ids stay as they are written.
        extra: Other columns wanted: float64 of a CSV file, of the file's types otherwise.
        remedy: What to do about a missing column, as the end of a sentence.

    Raises:
        InputError: If it is missing or damaged, or lacks a column.
    """
    for part in parts(path, key):
        wanted = part.inside(list(dict.fromkeys([*text, *extra])))
        if not wanted:
            raise InputError(
                f"{key}={part.path} lies in folders that name every column wanted; keep one of "
                "them in the file."
            )
        for block in _blocks(part.path, key, part.inside(text), wanted, remedy):
            yield part.completed(block, text, extra)


def _blocks(
    path: Path, key: str, text: Sequence[str], wanted: list[str], remedy: str
) -> Iterator[pa.Table]:
    """Columns of one file."""
    kind = suffix(path, key)

    def check(names: list[str]) -> None:
        if kind in CSV and len(names) == 1 and len(wanted) > 1:
            _check_separator(path, key, names[0], CSV[kind])
        _check_header(path, key, names, wanted, remedy)

    with _sentences(path, key):
        if kind in PARQUET:
            yield from _parquet_blocks(path, key, wanted, check)
        else:
            yield from csv_blocks(path, CSV[kind], text, wanted, check)


def read_whole(
    path: Path, key: str, text: Sequence[str], extra: Sequence[str] = (), *, remedy: str = _USAGE
) -> pa.Table:
    """All rows of ``read_blocks``; the arguments are the same."""
    return _joined(list(read_blocks(path, key, text, extra, remedy=remedy)), path, key)


def read_every_column(path: Path, key: str, text: Sequence[str]) -> pa.Table:
    """All rows and columns, of the types that the whole file shows.

    Args:
        path: The file, CSV or Parquet.
        key: What error sentences call it.
        text: Columns that a CSV file gives as text, whatever they look like.

    Raises:
        InputError: If it is missing or damaged.
    """
    tables = []
    for part in parts(path, key):
        table = _every_column(part.path, key, text)
        tables.append(part.completed(table, list(part.columns), []))
    return _joined(tables, path, key)


def _joined(tables: list[pa.Table], path: Path, key: str) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except MemoryError:
        raise
    except pa.ArrowException as error:
        raise InputError(
            f"{key}={path}: its files hold a column in different types ({first_line(error)}); "
            "write them with the same."
        ) from error


def _every_column(path: Path, key: str, text: Sequence[str]) -> pa.Table:
    kind = suffix(path, key)
    with _sentences(path, key):
        if kind in PARQUET:
            with pyarrow.parquet.ParquetFile(path, read_dictionary=_texts(path)) as file:
                _check_declared(path, key, file.metadata)
                return file.read()
        table = csv_table(path, CSV[kind], text)
    if table.num_columns == 1:
        _check_separator(path, key, table.column_names[0], CSV[kind])
    return table


@contextmanager
def _sentences(path: Path, key: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # Arrow's is one of its exceptions, and says nothing of the file
        raise
    except _DAMAGE as error:
        reason = first_line(error)
        header, separator = _header(path), CSV.get(suffix(path, key))
        if separator is not None and separator not in header:
            _check_separator(path, key, header, separator)
        raise InputError(
            f"{key}={path} cannot be read ({reason}); {_remedy(path, reason)}."
        ) from error


def _header(path: Path) -> str:
    """The first line of a text file, or what can be read of it."""
    with suppress(*_DAMAGE), pa.input_stream(path, compression="detect") as stream:
        return str(stream.read(2**16).decode("utf-8", "replace").partition("\n")[0])
    return ""


def _remedy(path: Path, reason: str) -> str:
    """What to do about a file that cannot be read, by what it looks like."""
    with suppress(*_DAMAGE), pa.input_stream(path, compression="detect") as stream:
        if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "it is text in UTF-16: save it as UTF-8 (pandas: read_csv(encoding='utf-16'))"
    if "UTF8" in reason:
        return (
            "its text is not UTF-8: save it as UTF-8; it may be in Windows-1252 or Latin-1, "
            "which pandas reads with read_csv(encoding='cp1252')"
        )
    if _COMMA.search(reason):
        return "write numbers with a decimal point (pandas: read_csv(decimal=','))"
    return "fix that row or restore the file"


def _check_separator(path: Path, key: str, header: str, separator: str) -> None:
    """Refuse a header that another separator divides, and say which.

    Raises:
        InputError: If it is so.
    """
    other = next((mark for mark in SEPARATORS if mark in header), None)
    if other is None or other == separator:
        return
    name = SEPARATORS[other]
    fix = "rename it to .tsv" if other == "\t" else ""
    if other == ",":
        fix = "rename it to .csv"
    fix = fix or f"save it with commas, for example with read_csv(sep={other!r}) and to_csv"
    raise InputError(f"{key}={path} is separated by {name}, not by {SEPARATORS[separator]}; {fix}.")


def suffix(path: Path, key: str) -> str:
    """The suffix that says the kind of a file, ``.gz`` left out.

    Raises:
        InputError: If it is not known.
    """
    found = [s.lower() for s in path.suffixes if s.lower() != ".gz"][-1:]
    if not found or found[0] not in (*CSV, *PARQUET):
        raise InputError(
            f"{key}={path} ends in {path.suffix or 'nothing'}, which is not known; allowed are "
            f"{', '.join([*CSV, *PARQUET])}: rename or convert the file."
        )
    return found[0]


def _parquet_blocks(
    path: Path, key: str, wanted: list[str], check: Callable[[list[str]], None]
) -> Iterator[pa.Table]:
    # buffered, not read ahead: a row group may hold the whole file
    with pyarrow.parquet.ParquetFile(
        path, buffer_size=2**20, pre_buffer=False, read_dictionary=_texts(path)
    ) as file:
        check(file.schema_arrow.names)
        _check_declared(path, key, file.metadata)
        if not file.metadata.num_rows:
            yield file.read(columns=wanted)
        for batch in file.iter_batches(ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])


def _texts(path: Path) -> list[str]:
    """Columns of text, which are read as categories: a text that is repeated is held once."""
    schema = pyarrow.parquet.read_schema(path)
    return [field.name for field in schema if str(field.type) in ("string", "large_string")]


def _check_declared(path: Path, key: str, metadata: Any) -> None:
    """Refuse a small file that declares a large table.

    Raises:
        InputError: If it declares more than a hundred times its size.
    """
    size = path.stat().st_size
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    declared = sum(max(group.total_byte_size, 0) for group in groups)
    if max(metadata.num_rows, declared) > max(BLOWN_UP * size, 2**24):
        raise InputError(
            f"{key}={path} declares {metadata.num_rows:,} rows and {declared:,} bytes in a file of "
            f"{size:,}; write it anew from its source."
        )


def _check_header(path: Path, key: str, names: list[str], wanted: list[str], remedy: str) -> None:
    absent = [name for name in wanted if name not in names]
    if absent:
        raise InputError(
            f"{key}={path} has no column {' or '.join(absent)}, only "
            f"{', '.join(names) or 'none'}; {remedy}."
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(f"{key}={path} has more than one column {twice[0]}; keep one of them.")
