"""A limit on what tensors may take while something is built from a stranger's settings."""

import math
import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from upo.errors import InputError

# arguments of operations that say how large a result is
_SIZES = ("size", "end", "n", "steps", "repeats", "output_size", "num_samples")


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block, an operation beyond the budget ends in a sentence before it runs.

    Args:
        elements: Most elements of one tensor; all together may have sixteen times as many.
        operations: Most operations.
        seconds: Of computing.
        sentence: What to say.
    """

    def __init__(self, *, elements: int, operations: int, seconds: float, sentence: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._elements, self._operations = elements, operations
        self._left, self._sentence = 16 * elements, sentence
        self._end = time.process_time() + seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._operations -= 1
        for declared, value in zip(func._schema.arguments, args, strict=False):
            if declared.name in _SIZES:
                self._check(value)
        for name, value in kwargs.items():
            if name in _SIZES:
                self._check(value)
        if self._operations < 0 or time.process_time() > self._end:
            raise InputError(self._sentence)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result._base is None:
            self._left -= result.numel()
            if self._left < 0:
                raise InputError(self._sentence)
        return result

    def _check(self, value: Any) -> None:
        if isinstance(value, list | tuple):
            value = math.prod(value)
        if isinstance(value, int | float) and value > self._elements:
            raise InputError(self._sentence)
