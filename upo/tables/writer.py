"""CSV and Parquet files written block by block, and in place once they are complete."""

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
from upo.tables.files import CSV, PARQUET, suffix


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
            if self._kind in PARQUET:
                self._writer = pyarrow.parquet.ParquetWriter(self._file, table.schema)
            else:
                options = pyarrow.csv.WriteOptions(
                    delimiter=CSV[self._kind], quoting_style="needed"
                )
                self._writer = pyarrow.csv.CSVWriter(
                    self._file, table.schema, write_options=options
                )
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
