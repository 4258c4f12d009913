"""Files that a kill, a full disk or a power cut leaves either as they were or complete."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from upo.core.locks import take

_LONGEST = 200  # bytes of a name in an unfinished file's own, which may have 255
# .NAME.PID.RANDOM; before, PID was left out, or stood with a suffix "part"
_UNFINISHED = re.compile(r"\..+\.((?P<pid>\d+)\.)?([a-z0-9_]{8}|\d+\.part)")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file open for writing beside ``path``, moved there once the block has ended well.

    What was written is on the disk before the move, and the move before the block's end. A new file
    gets the permissions that the user's mask leaves; one that is replaced keeps its own.

    Raises:
        OSError: If it cannot be written, such as on a full disk; its ``filename`` is ``path``.
    """
    unfinished: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = _create(path)
        with os.fdopen(handle, "w+b") as file:
            take(handle)  # free again when this process has ended, however it did
            yield file
            file.flush()
            with suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
            os.fsync(handle)
            unfinished.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
        failed = _failed_write(error)
        if failed is None:
            raise
        failed.filename, failed.filename2 = str(path), None
        raise failed from None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old one or the new one."""
    with atomic_file(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that are gone had begun to write; what is under way stays."""
    for path in folder.glob(".*"):
        found = _UNFINISHED.fullmatch(path.name)
        if found is None or path.is_symlink() or not path.is_file():
            continue
        if found["pid"] is not None and int(found["pid"]) != os.getpid() and _alive(found["pid"]):
            continue
        with suppress(OSError), path.open("rb") as file:
            if take(file.fileno()):
                path.unlink(missing_ok=True)


def _create(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``; the system takes the user's mask off its permissions."""
    name = path.name.encode()[:_LONGEST].decode(errors="ignore")
    while True:
        beside = path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
        with suppress(FileExistsError):
            return os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), beside


def _alive(pid: str) -> bool:
    """Whether a process of that number runs here; if it is of another machine, its lock tells."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _failed_write(error: BaseException) -> OSError | None:
    """The failed write of an unfinished file, also where torch says it in words of its own."""
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    if not isinstance(error, OSError):
        return None
    name = error.filename
    ours = name is None or _UNFINISHED.fullmatch(Path(os.fsdecode(name)).name)
    return error if ours else None
