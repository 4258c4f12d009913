"""Tables of pairs in CSV or Parquet files, with whatever further columns they have."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from upo.errors import InputError
from upo.tables.files import suffix
from upo.tables.frames import first_line

_SEPARATORS = {".tsv": "\t"}


def read_file(path: Path, ids: tuple[str, str]) -> pa.Table:
    """All columns of a file; in a CSV file ids are text, whatever they look like.

    Raises:
        InputError: If the file is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise InputError(f"pairs={path} is not a file; give the path of a CSV or Parquet file.")
    kind = suffix(path, "pairs")
    try:
        if kind in (".parquet", ".pq"):
            return pyarrow.parquet.read_table(path)
        text = pa.dictionary(pa.int32(), pa.string())
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # so that messages name rows
            parse_options=pyarrow.csv.ParseOptions(delimiter=_SEPARATORS.get(kind, ",")),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(ids, text)),
        )
    except (pa.ArrowException, UnicodeError, OSError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(
            f"pairs={path} cannot be read ({first_line(error)}); fix that row or restore the file."
        ) from error
