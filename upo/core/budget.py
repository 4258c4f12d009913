"""A limit on what tensors may take while something is built from a stranger's settings."""

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from upo.errors import InputError

# what makes a tensor of sizes that it is told; all other results grow with what is there
_SIZED = {
    "empty", "eye", "full", "ones", "rand", "randint", "randn", "zeros", "new_empty", "new_full",
    "new_ones", "new_zeros", "repeat", "tile", "expand", "broadcast_to", "resize_",
}  # fmt: skip
_FILLED = {"full", "randint", "new_full"}
_REPEATED = {"repeat", "tile"}
_COUNTED = {"arange", "randperm", "linspace", "logspace", "repeat_interleave"}


class Budget(TorchFunctionMode):
    """Within the block, an operation beyond the budget ends in a sentence before it runs.

    Args:
        elements: Most elements of one tensor; all together may have sixteen times as many.
        operations: Most operations.
        seconds: Of computing.
        sentence: What to say.
    """

    def __init__(self, *, elements: int, operations: int, seconds: float, sentence: str) -> None:
        super().__init__()
        self._elements, self._operations = elements, operations
        self._left, self._sentence = 16 * elements, sentence
        self._end = time.process_time() + seconds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        self._operations -= 1
        if name in _SIZED or name in _COUNTED:
            given = [*args, *kwargs.values()]
            if name in _FILLED:  # with a value that may be any number
                given = [x for x in given if isinstance(x, list | tuple)]
            numbers = list(_numbers(given))
            if args and isinstance(args[0], torch.Tensor) and name in _REPEATED:
                numbers.append(args[0].numel())
            size = math.prod(numbers) if name in _SIZED else max(numbers, default=0)
            self._left -= size
            if size > self._elements or self._left < 0:
                raise InputError(self._sentence)
        if self._operations < 0 or time.process_time() > self._end:
            raise InputError(self._sentence)
        return func(*args, **kwargs)


def _numbers(arguments: list[Any]) -> Iterator[int]:
    """Whole numbers above 1 among arguments, sizes among them."""
    for argument in arguments:
        if isinstance(argument, list | tuple | torch.Size):
            yield from _numbers(list(argument))
        elif type(argument) is int and argument > 1:
            yield argument
