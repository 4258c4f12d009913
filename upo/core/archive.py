"""Files of ``torch.save`` that a stranger may have made, read in no more memory than they take.

``torch.load`` reads what a file declares before anything is compared: a storage of a thousand
numbers may be declared as a billion, a compressed member of a kilobyte may hold ten gigabytes, and
a stride of 0 makes a table of one number. Here the archive is checked first, then the pickle is
read as a description (`upo.core.pickled`), and a tensor is made only of bytes that are there.
"""

import math
import stat
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upo.core.pickled import Declared, Description, PickleError, Stored

MEMBERS = 100_000
PICKLE = 2**26  # bytes of the part that is no tensor: some three million ids of text
_TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


class ArchiveError(ValueError):
    """Not a whole, honest file of ``torch.save`` with plain values and tensors."""


def read_archive(path: Path) -> Any:
    """What a file of ``torch.save`` holds: dictionaries, lists, plain values and CPU tensors.

    Raises:
        ArchiveError: If it is anything else, or declares more than it holds.
        OSError: If it cannot be read.
    """
    size = regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, size).read()
    except PickleError as error:
        raise ArchiveError(str(error)) from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError("it is no whole archive") from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise ArchiveError("it declares more than can be read") from error


def regular(path: Path) -> int:
    """Bytes of a regular file; a pipe or a device would be waited for.

    Raises:
        ArchiveError: If it is none.
        OSError: If it is not there.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ArchiveError("it is no regular file")
    return found.st_size


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive, self._size = archive, size
        members = archive.infolist()
        if len(members) > MEMBERS:
            raise ArchiveError(f"it has {len(members)} parts")
        if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
            raise ArchiveError("parts of it are compressed or encrypted")
        self._members = {m.filename.partition("/")[2]: m for m in members}
        if len(self._members) < len(members) or sum(m.file_size for m in members) > size:
            raise ArchiveError("its parts overlap")
        self._left = 2 * size + 2**20  # bytes of tensors; views of one storage may share it
        self._stored: dict[Stored, Tensor] = {}

    def read(self) -> Any:
        if "data.pkl" not in self._members:
            raise ArchiveError("it has no data.pkl")
        if "byteorder" in self._members and self._bytes("byteorder") != b"little":
            raise ArchiveError("its numbers have another byte order")
        if self._members["data.pkl"].file_size > PICKLE:
            raise ArchiveError(f"more than {PICKLE >> 20} MiB of it are no tensors")
        data = self._bytes("data.pkl")
        self._nodes = len(data) + 1  # more only where one part stands in several places
        return self._made(Description(data).read(), 0)

    def _bytes(self, name: str) -> bytes:
        return self._archive.read(self._members[name])

    def _made(self, value: Any, depth: int) -> Any:
        """A description with its tensors; what contains itself has no end and is refused."""
        self._nodes -= 1
        if self._nodes < 0 or depth > 50:
            raise ArchiveError("parts of it contain themselves or one another")
        if isinstance(value, Declared):
            return self._tensor(value)
        if isinstance(value, dict):
            return {key: self._made(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._made(inner, depth + 1) for inner in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ArchiveError("it holds more than plain values and tensors")

    def _tensor(self, declared: Declared) -> Tensor:
        stored = declared.stored
        kind = _TYPES.get(stored.kind)
        name = f"data/{stored.key}"
        if kind is None or name not in self._members:
            raise ArchiveError(f"a tensor lies in a {stored.kind[:40]} that is not there")
        if self._members[name].file_size != stored.count * kind.itemsize:
            raise ArchiveError("a tensor is declared larger or smaller than what is there")
        numbers = math.prod(declared.shape)
        far = sum(max(n - 1, 0) * s for n, s in zip(declared.shape, declared.stride, strict=True))
        flat = any(s == 0 and n > 1 for n, s in zip(declared.shape, declared.stride, strict=True))
        inside = not numbers or declared.offset + far < stored.count
        self._left -= numbers * kind.itemsize
        if flat or not inside or numbers > stored.count or self._left < 0:
            raise ArchiveError("a tensor is declared larger than what is there")
        if not numbers:
            if max(declared.shape, default=0) > 2**62:
                raise ArchiveError("a tensor is declared larger than what is there")
            return torch.zeros(declared.shape, dtype=kind)
        if stored not in self._stored:
            self._stored[stored] = torch.frombuffer(bytearray(self._bytes(name)), dtype=kind)
        whole = self._stored[stored]
        if numbers == stored.count and whole.view(declared.shape).stride() == declared.stride:
            return whole.view(declared.shape)
        return whole.as_strided(declared.shape, declared.stride, declared.offset).clone()
