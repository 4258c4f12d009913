"""CSV and Parquet files in and out, block by block: read as they are, written in one move."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
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
BYTES = 2**22  # of a CSV file read at once, or more where a row is longer
LONGEST = 2**26  # bytes of a row of a CSV file
BLOWN_UP = 100  # times its size that a Parquet file may declare, in rows or bytes, beyond 16 MiB
_CSV = {".csv": ",", ".tsv": "\t", ".txt": ","}  # each also with .gz behind it
_PARQUET = (".parquet", ".pq")
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
        path: The file, CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) or Parquet.
        key: What error sentences call it.
        text: Columns that a CSV file gives as text: ids stay as they are written.
        extra: Other columns wanted: float64 of a CSV file, of the file's types otherwise.
        remedy: What to do about a missing column, as the end of a sentence.

    Raises:
        InputError: If it is missing or damaged, or lacks a column.
    """
    kind = _kind(path, key)
    wanted = list(dict.fromkeys([*text, *extra]))
    with _sentences(path, key):
        if kind in _PARQUET:
            yield from _parquet_blocks(path, key, text, wanted, remedy)
        else:
            yield from _csv_blocks(path, key, _CSV[kind], text, wanted, remedy)


def read_whole(
    path: Path, key: str, text: Sequence[str], extra: Sequence[str] = (), *, remedy: str = _USAGE
) -> pa.Table:
    """All rows of ``read_blocks``; the arguments are the same."""
    blocks = read_blocks(path, key, text, extra, remedy=remedy)
    return pa.concat_tables(blocks, promote_options="permissive")


def read_every_column(path: Path, key: str, text: Sequence[str]) -> pa.Table:
    """All rows and columns, of the types that the whole file shows.

    Args:
        path: The file, CSV or Parquet.
        key: What error sentences call it.
        text: Columns that a CSV file gives as text, whatever they look like.

    Raises:
        InputError: If it is missing or damaged.
    """
    kind = _kind(path, key)
    with _sentences(path, key):
        if kind in _PARQUET:
            with pyarrow.parquet.ParquetFile(path, read_dictionary=_texts(path)) as file:
                _check_declared(path, key, file.metadata)
                return file.read()
        ids = dict.fromkeys(text, pa.dictionary(pa.int32(), pa.string()))
        size = BYTES
        while True:
            try:
                return pyarrow.csv.read_csv(
                    _WholeLineEnds(path),
                    read_options=_reading(size),
                    parse_options=_parsing(_CSV[kind]),
                    convert_options=pyarrow.csv.ConvertOptions(column_types=ids),
                )
            except pa.ArrowInvalid as error:
                size = _larger(size, error)


def _kind(path: Path, key: str) -> str:
    if not path.is_file():  # nor a pipe or a device, which would be waited for
        raise InputError(f"{key}={path} is not a file; give the path of a CSV or Parquet file.")
    return suffix(path, key)


@contextmanager
def _sentences(path: Path, key: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(
            f"{key}={path} cannot be read ({first_line(error)}); fix that row or restore the file."
        ) from error


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


def _parquet_blocks(
    path: Path, key: str, text: Sequence[str], wanted: list[str], remedy: str
) -> Iterator[pa.Table]:
    # buffered, not read ahead: a row group may hold the whole file
    with pyarrow.parquet.ParquetFile(
        path, buffer_size=2**20, pre_buffer=False, read_dictionary=_texts(path)
    ) as file:
        _check_header(path, key, file.schema_arrow.names, wanted, remedy)
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


def _csv_blocks(
    path: Path, key: str, separator: str, text: Sequence[str], wanted: list[str], remedy: str
) -> Iterator[pa.Table]:
    types = dict.fromkeys(wanted, pa.float64()) | dict.fromkeys(text, pa.string())
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted)
    size, given = BYTES, 0
    while True:
        try:
            options = {"read_options": _reading(size), "parse_options": _parsing(separator)}
            with pyarrow.csv.open_csv(_WholeLineEnds(path), **options) as reader:
                _check_header(path, key, reader.schema.names, wanted, remedy)
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
