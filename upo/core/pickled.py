"""The pickles of ``torch.save``, read as a description: no class is looked up, nothing is called.

Only the opcodes that protocol 2 needs for dictionaries, lists, tuples, text, numbers and tensors
are known; anything else ends the reading. Memory and time are bounded by the length of the stream.
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECONDS = 6.0  # of computing for one stream; one of a million ids takes two
PARTS = 4_000_000  # remembered, and a tenth of it that contain others: what a stream can multiply
_MARK = object()


@dataclass(frozen=True)
class Global:
    """A name in the stream; it is never imported."""

    name: str


@dataclass(frozen=True)
class Stored:
    """Where the numbers of a tensor lie: kind of storage, member of the archive, how many."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Declared:
    """A tensor as the stream declares it; nothing is allocated."""

    stored: Stored
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class PickleError(ValueError):
    """The stream is not what ``torch.save`` writes for plain values and tensors."""


class Description:
    """One stream.

    Args:
        data: The pickle.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0
        self._codes: dict[int, Callable[[], None]] = {
            code[0]: getattr(self, name)
            for code, name in {
                b"\x80": "_proto", b"}": "_dict", b"]": "_list", b")": "_unit", b"(": "_mark",
                b"q": "_put1", b"r": "_put4", b"h": "_get1", b"j": "_get4", b"X": "_text",
                b"J": "_int4", b"K": "_int1", b"M": "_int2", b"\x8a": "_long1", b"G": "_float",
                b"N": "_none", b"\x88": "_true", b"\x89": "_false", b"c": "_global",
                b"t": "_tuple", b"\x85": "_tuple1", b"\x86": "_tuple2", b"\x87": "_tuple3",
                b"Q": "_persistent", b"R": "_reduce", b"b": "_build", b"a": "_append",
                b"e": "_appends", b"s": "_item", b"u": "_items",
            }.items()
        }  # fmt: skip

    def read(self) -> Any:
        """The object: dictionaries, lists, tuples, plain values and ``Declared``.

        Raises:
            PickleError: If the stream holds anything else, or takes too long.
        """
        data, codes = self._data, self._codes
        end, start, count = len(data), time.process_time(), 0
        try:
            while self._at < end:
                code = data[self._at]
                self._at += 1
                if code == 46:  # "."
                    (found,) = self._stack
                    return found
                codes[code]()
                count += 1
                if not count & 0xFFFF:
                    if time.process_time() - start > SECONDS:
                        raise PickleError(f"it takes more than {SECONDS:g} seconds to read")
                    if max(len(self._memo), len(self._stack), 10 * self._containers) > PARTS:
                        raise PickleError("it has too many parts")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
            if isinstance(error, PickleError):
                raise
            raise PickleError("it holds more than plain values and tensors") from error
        raise PickleError("it breaks off")

    def _take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise PickleError("it breaks off")
        self._at += count
        return part

    def _number(self, form: str, count: int) -> Any:
        return struct.unpack(form, self._take(count))[0]

    def _since_mark(self) -> list[Any]:
        stack = self._stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise PickleError("it is out of order")
        found = stack[place + 1 :]
        del stack[place:]
        return found

    def _proto(self) -> None:
        if self._take(1) != b"\x02":
            raise PickleError("it is of another pickle protocol")

    def _dict(self) -> None:
        self._containers += 1
        self._stack.append({})

    def _list(self) -> None:
        self._containers += 1
        self._stack.append([])

    def _unit(self) -> None:
        self._stack.append(())

    def _mark(self) -> None:
        self._stack.append(_MARK)

    def _put1(self) -> None:
        self._memo[self._take(1)[0]] = self._stack[-1]

    def _put4(self) -> None:
        self._memo[self._number("<I", 4)] = self._stack[-1]

    def _get1(self) -> None:
        self._stack.append(self._memo[self._take(1)[0]])

    def _get4(self) -> None:
        self._stack.append(self._memo[self._number("<I", 4)])

    def _text(self) -> None:
        self._stack.append(self._take(self._number("<I", 4)).decode("utf-8", "surrogatepass"))

    def _int4(self) -> None:
        self._stack.append(self._number("<i", 4))

    def _int1(self) -> None:
        self._stack.append(self._take(1)[0])

    def _int2(self) -> None:
        self._stack.append(self._number("<H", 2))

    def _long1(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(self._number(">d", 8))

    def _none(self) -> None:
        self._stack.append(None)

    def _true(self) -> None:
        self._stack.append(True)

    def _false(self) -> None:
        self._stack.append(False)

    def _global(self) -> None:
        parts = []
        for _ in range(2):
            end = self._data.index(b"\n", self._at, self._at + 200)
            parts.append(self._data[self._at : end].decode("ascii"))
            self._at = end + 1
        self._stack.append(Global(".".join(parts)))

    def _tuple(self) -> None:
        self._containers += 1
        self._stack.append(tuple(self._since_mark()))

    def _tuple1(self) -> None:
        self._containers += 1
        self._stack[-1:] = [(self._stack[-1],)]

    def _tuple2(self) -> None:
        self._containers += 1
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _tuple3(self) -> None:
        self._containers += 1
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _persistent(self) -> None:
        word, kind, key, _, count = self._stack.pop()
        if word != "storage" or not isinstance(kind, Global):
            raise PickleError("it refers to what is no storage")
        self._stack.append(Stored(kind.name, str(key), _whole(count)))

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        name = function.name
        if name == "collections.OrderedDict" and arguments == ():
            self._stack.append({})
        elif name == "torch._utils._rebuild_tensor_v2":
            stored, offset, shape, stride = arguments[:4]
            if not isinstance(stored, Stored):
                raise PickleError("a tensor has no storage")
            shape, stride = tuple(map(_whole, shape)), tuple(map(_whole, stride))
            if len(shape) != len(stride):
                raise PickleError("a tensor has a shape of another length than its strides")
            self._stack.append(Declared(stored, _whole(offset), shape, stride))
        elif name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], Declared):
            self._stack.append(arguments[0])
        else:
            raise PickleError(f"it would call {name}")

    def _build(self) -> None:  # the metadata of a state_dict, which nothing here needs
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise PickleError("it sets attributes of what is no dictionary")

    def _append(self) -> None:
        value = self._stack.pop()
        self._into(list).append(value)

    def _appends(self) -> None:
        values = self._since_mark()
        self._into(list).extend(values)

    def _item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(key, value)

    def _items(self) -> None:
        values = self._since_mark()
        for key, value in zip(values[::2], values[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        # keys whose hashes a stranger can choose make a dictionary slow, so no large numbers
        small = type(key) is int and abs(key) < 2**20
        if not (small or type(key) is str):
            raise PickleError("a dictionary has a key that is no text")
        self._into(dict)[key] = value

    def _into(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise PickleError("it is out of order")
        return self._stack[-1]


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise PickleError(f"a tensor has the size {value!r}")
    return value
