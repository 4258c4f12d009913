"""CSV and Parquet files in and out, block by block: read as they are, written in one move."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from upo.core.files import atomic_file
from upo.errors import InputError
from upo.tables.frames import first_line

ROWS = 2**17  # of a Parquet file read at once
BYTES = 2**22  # of a CSV file read at once
_CSV = {".csv": ",", ".tsv": "\t", ".txt": ","}  # each also with .gz behind it
_PARQUET = (".parquet", ".pq")
_DAMAGE = (pa.ArrowException, UnicodeError, OSError, EOFError, gzip.BadGzipFile)


def read_blocks(path: Path, key: str, text: list[str], extra: list[str]) -> Iterator[pa.Table]:
    """Columns of a file, block by block; at least one block, if only an empty one.

    Args:
        path: The file, CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) or Parquet.
        key: What error sentences call it.
        text: Columns that a CSV file gives as text: ids stay as they are written.
        extra: Other columns wanted, of the types that the file shows.

    Raises:
        InputError: If it is missing or damaged, or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"{key}={path} is not a file; give the path of a CSV or Parquet file.")
    kind = suffix(path, key)
    wanted = list(dict.fromkeys([*text, *extra]))
    try:
        if kind in _PARQUET:
            yield from _parquet_blocks(path, key, wanted)
        else:
            yield from _csv_blocks(path, key, _CSV[kind], text, wanted)
    except _DAMAGE as error:
        raise InputError(
            f"{key}={path} cannot be read ({first_line(error)}); fix that row or restore the file."
        ) from error


def read_whole(path: Path, key: str, text: list[str], extra: list[str]) -> pa.Table:
    """All rows of ``read_blocks``."""
    return pa.concat_tables(read_blocks(path, key, text, extra), promote_options="permissive")


def suffix(path: Path, key: str) -> str:
    """The suffix that says the kind of a file, ``.gz`` left out.

    Raises:
        InputError: If it is not known.
    """
    found = [s.lower() for s in path.suffixes if s.lower() != ".gz"][-1:]
    if not found or found[0] not in (*_CSV, *_PARQUET):
        raise InputError(
            f"{key}={path} ends in {path.suffix or 'nothing'}, which is not known; allowed are "
            f"{', '.join([*_CSV, *_PARQUET])}: rename or convert the file."
        )
    return found[0]


@contextmanager
def table_writer(path: Path, key: str) -> Iterator["TableWriter"]:
    """A file that is there, complete, once the block has ended well, and otherwise as before.

    Raises:
        InputError: If its suffix is unknown or it cannot be written.
    """
    kind = suffix(path, key)
    try:
        with (
            atomic_file(path) as file,
            gzip.open(file, "wb") if path.suffix.lower() == ".gz" else nullcontext(file) as out,
        ):
            writer = TableWriter(out, kind)
            yield writer
            writer.close()
    except OSError as error:
        raise InputError(
            f"{key}={path} cannot be written ({error.strerror or error}); fix the folder's "
            "permissions or choose another."
        ) from error


class TableWriter:
    """Writes blocks of one schema, that of the first.

    Args:
        file: Where, open for bytes.
        kind: Suffix of the file.
    """

    def __init__(self, file: Any, kind: str) -> None:
        self._file, self._kind = file, kind
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Write a block; the first one may be empty, so that an empty answer has its header."""
        for place, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):  # which CSV files have no word for
                values = table[field.name].cast(field.type.value_type)
                table = table.set_column(place, field.name, values)
        if self._writer is None:
            if self._kind in _PARQUET:
                self._writer = pyarrow.parquet.ParquetWriter(self._file, table.schema)
            else:
                options = pyarrow.csv.WriteOptions(
                    delimiter=_CSV[self._kind], quoting_style="needed"
                )
                self._writer = pyarrow.csv.CSVWriter(
                    self._file, table.schema, write_options=options
                )
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _parquet_blocks(path: Path, key: str, wanted: list[str]) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _check_header(path, key, file.schema_arrow.names, wanted)
        if not file.metadata.num_rows:
            yield file.read(columns=wanted)
        for batch in file.iter_batches(ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])


def _csv_blocks(
    path: Path, key: str, separator: str, text: list[str], wanted: list[str]
) -> Iterator[pa.Table]:
    # One thread: only then do Arrow's messages name the row.
    reading = pyarrow.csv.ReadOptions(use_threads=False, block_size=BYTES)
    parsing = pyarrow.csv.ParseOptions(delimiter=separator)
    with pyarrow.csv.open_csv(path, read_options=reading, parse_options=parsing) as reader:
        _check_header(path, key, reader.schema.names, wanted)
    types = dict.fromkeys(text, pa.string()) | {
        name: pa.float64() for name in wanted if name not in text
    }
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=wanted, null_values=[""], strings_can_be_null=True
    )
    with pyarrow.csv.open_csv(
        path, read_options=reading, parse_options=parsing, convert_options=convert
    ) as reader:
        empty = True
        for batch in reader:
            empty = False
            yield pa.Table.from_batches([batch])
        if empty:
            yield reader.schema.empty_table()


def _check_header(path: Path, key: str, names: list[str], wanted: list[str]) -> None:
    absent = [name for name in wanted if name not in names]
    if absent:
        raise InputError(
            f"{key}={path} has no column {' or '.join(absent)}, only "
            f"{', '.join(names) or 'none'}; rename them, or name yours as the usage says (--help)."
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(f"{key}={path} has more than one column {twice[0]}; keep one of them.")
