"""Files that a kill leaves either as they were or complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file open for writing beside ``path``, moved there once the block has ended well.

    Raises:
        OSError: If it cannot be written, such as on a full disk; its ``filename`` is ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        failed = _failed_write(error)
        if failed is None:
            raise
        failed.filename, failed.filename2 = str(path), None
        raise failed from None


def _failed_write(error: BaseException) -> OSError | None:
    """The failed write of a file without a name, also where torch says it in words of its own."""
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    return error if isinstance(error, OSError) and error.filename is None else None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old one or the new one."""
    with atomic_file(path) as file:
        file.write(text.encode())
