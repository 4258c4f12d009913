"""Tables of several files: a folder, a pattern such as ``logs/*.parquet``, hive partitions."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from upo.errors import InputError

MOST = 100_000  # files and folders that a table may consist of
EMPTY = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark write for an empty cell


@dataclass(frozen=True)
class Part:
    """A file of a table, and its columns that stand in the names of folders (``day=2024-01-31``).

    These are the same in every row of the file; where the file has the column as well, the folder
    counts.
    """

    path: Path
    columns: Mapping[str, str | None] = field(default_factory=dict)

    def inside(self, wanted: Sequence[str]) -> list[str]:
        """Of these columns, those that the file itself must have."""
        return [name for name in wanted if name not in self.columns]

    def completed(self, block: pa.Table, text: Sequence[str], numbers: Sequence[str]) -> pa.Table:
        """A block of the file with columns of its folders, those that are wanted.

        Raises:
            InputError: If one that is wanted as a number is none.
        """
        for name in self.columns:
            if name not in (*text, *numbers):
                continue
            column = pa.repeat(pa.scalar(self.columns[name], pa.string()), len(block))
            if name not in text:
                try:
                    column = pc.cast(column, pa.float64())
                except pa.ArrowInvalid as error:
                    raise InputError(
                        f"{self.path} lies in a folder {name}={self.columns[name]}, and the column "
                        f"{name} must hold numbers; rename one of the two."
                    ) from error
            if name in block.column_names:
                block = block.drop_columns(name)
            block = block.append_column(name, column)
        return block


def parts(path: Path, key: str) -> list[Part]:
    """The files of a table, in the order of their names.

    Within a folder, files and folders whose names begin with ``.`` or ``_`` are none of it, as
    those that Spark and Hive keep beside their data.

    Args:
        path: A file, a folder (with all that lies below), or a pattern of either with ``*``, ``?``,
            ``[...]`` or ``**``.
        key: What error sentences call it.

    Raises:
        InputError: If there is no file, or more than 100,000.
    """
    if path.is_file():
        return [Part(path)]
    if path.is_dir():
        found = list(_below(path, path, key))
    elif glob.has_magic(str(path)):
        found = list(_matches(path, key))
    else:  # nor a pipe or a device, which would be waited for
        raise InputError(
            f"{key}={path} is not a file; give the path of a CSV or Parquet file, of a folder of "
            "such files, or a pattern such as logs/*.parquet."
        )
    if not found:
        raise InputError(
            f"{key}={path} has no files; give the path of a CSV or Parquet file, of a folder of "
            "such files, or a pattern such as logs/*.parquet."
        )
    return found


def _below(folder: Path, root: Path, key: str) -> Iterator[Part]:
    """All regular files below a folder; links to folders are not followed."""
    seen = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        seen += len(folders) + len(names)
        _check_count(seen, folder, key)
        for name in sorted(names):
            file = Path(where) / name
            if not name.startswith((".", "_")) and file.is_file():
                yield Part(file, _columns(file.parent.relative_to(root).parts))


def _matches(pattern: Path, key: str) -> Iterator[Part]:
    first = next(n for n, name in enumerate(pattern.parts) if glob.has_magic(name))
    root = Path(*pattern.parts[:first])
    matches = []
    for name in glob.iglob(str(pattern), recursive=True):  # noqa: PTH207
        matches.append(Path(name))
        _check_count(len(matches), pattern, key)
    folders = {match for match in matches if match.is_dir()}
    for match in sorted(matches):
        if folders & set(match.parents):
            continue  # one of a folder that matches itself
        if match in folders:
            yield from _below(match, root, key)
        elif match.is_file():
            yield Part(match, _columns(match.parent.relative_to(root).parts))


def _columns(folders: Sequence[str]) -> dict[str, str | None]:
    """Columns in names of folders, as Hive writes them."""
    pairs = (name.partition("=") for name in folders)
    return {
        unquote(column): None if text == EMPTY else unquote(text)
        for column, equals, text in pairs
        if column and equals
    }


def _check_count(number: int, path: Path, key: str) -> None:
    if number > MOST:
        raise InputError(
            f"{key}={path} has more than {MOST:,} files and folders; give the folder of the table "
            "alone, or write it in fewer files."
        )
