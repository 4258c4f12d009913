"""Keeping freed memory while training on the CPU, where a step frees what the next one allocates.

By default the C library hands large blocks back to the system as soon as they are freed, and every
page of the next such block is faulted in and filled with zeros again: at ten replicas of a network
for Yahoo! R3 that takes half of a step.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# of glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
# Left alone, glibc raises both thresholds as it sees blocks freed; the first call of mallopt ends
# that for good. So what it would have come to is set: its defaults would be slower than before.
_AFTER = {
    _TRIM_THRESHOLD: 64 * 2**20,
    _TOP_PAD: 128 * 2**10,
    _MMAP_THRESHOLD: 32 * 2**20,
    _MMAP_MAX: 65536,
}
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20, _MMAP_MAX: 0}


def _library() -> ctypes.CDLL | None:
    """The C library if it is glibc, which alone has these settings."""
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "mallopt") else None
    except OSError:
        return None


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Keep freed memory in the process within the block, and give it back after.

    Peak memory stays what it was; between peaks the process holds what it held at the last one.

    Yields:
        Whether it was arranged: false without glibc, where nothing changes.
    """
    library = _library()
    if library is None:
        yield False
        return
    taken = [bool(library.mallopt(option, value)) for option, value in _KEEP.items()]
    try:
        yield all(taken)
    finally:
        for option, value in _AFTER.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
