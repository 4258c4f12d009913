"""Values of each epoch in one tensor, so that a checkpoint of many epochs costs what one of few."""

from typing import Any

import torch
from torch import Tensor


class Series:
    """Tensors of one shape, one for each epoch.

    Args:
        values: ``[T, ...]``, or a list of ``T`` tensors, as older checkpoints have it.
    """

    def __init__(self, values: Any = None) -> None:
        if isinstance(values, list):
            values = torch.stack(values) if values else None
        self._values: Tensor | None = values  # [capacity, ...]
        self._count = 0 if values is None else len(values)

    def append(self, value: Tensor) -> None:
        """Keep a copy of the next epoch's; the room doubles when it is full."""
        value = value.detach().cpu()
        if self._values is None:
            self._values = value.new_empty((16, *value.shape))
        elif self._count == len(self._values):
            larger = self._values.new_empty((2 * self._count + 1, *self._values.shape[1:]))
            larger[: self._count] = self._values
            self._values = larger
        self._values[self._count] = value
        self._count += 1

    def tensor(self) -> Tensor:
        """``[T, ...]``, a copy; ``[0]`` if there are none."""
        return torch.zeros(0) if self._values is None else self._values[: self._count].clone()

    def epochs(self) -> list[Tensor]:
        """One for each epoch."""
        return list(self.tensor())
