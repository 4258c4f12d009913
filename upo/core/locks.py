"""One process at a time: locks that the system drops with the process that holds them."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upo.errors import InputError, visible

NAME = ".lock"
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # no locks on such a disk


def take(handle: int) -> bool:
    """Lock an open file for this process alone; False where another one has it.

    On a file system without locks nobody has it.

    Raises:
        OSError: If the file cannot be locked for another reason.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
    return True


@contextmanager
def locked(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Hold the lock file ``path`` within the block; it is gone afterwards.

    The lock of a process that has ended counts no more, whether or not its file is still there.

    Args:
        path: The lock file; its folder is made.
        what: What is locked, as in ``the run folder R``.
        remedy: What another process is told to do.

    Raises:
        InputError: If another process holds the lock, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquired(path)
    except OSError as error:
        raise InputError(
            f"{what} cannot be written ({error.strerror or error}: {error.filename or path}); fix "
            "its permissions or choose another."
        ) from error
    if handle is None:
        raise InputError(f"{what} is in use by {_holder(path)}; {remedy}.")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquired(path: Path) -> int | None:
    """An open file with the lock and this process's name in it; None where another has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if not take(handle):
                os.close(handle)
                return None
            if _same(handle, path):
                with suppress(OSError):  # a full disk is named by whoever has results to write
                    os.ftruncate(handle, 0)
                    name = f"process {os.getpid()} on {socket.gethostname()}"
                    os.pwrite(handle, name.encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has removed it meanwhile


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(300).decode(errors="replace")
    except OSError:
        found = ""
    return visible(found, 200) or "another process"
