"""The factor of a term in a loss."""

import torch
from torch import Tensor

from upo.core.optim import Hyper, of_members, per_replica, placed
from upo.errors import InputError


class Strength:
    """A non-negative factor of a term: a number or one for each replica.

    Args:
        value: The factor.
        name: What messages call it.

    Raises:
        InputError: If it is negative.
    """

    replayable = True

    def __init__(self, value: Hyper, name: str) -> None:
        if not bool((torch.as_tensor(value) >= 0).all()):
            raise InputError(f"{name} must be at least 0, got {value}; try 1.")
        self.value, self.name = of_members(value), name

    def of(self, replicas: int) -> float | Tensor:
        """The factor, ``[replicas]`` where they differ.

        Raises:
            InputError: If there is another number of values.
        """
        return per_replica(self.value, replicas, self.name)

    def __call__(self, term: Tensor) -> Tensor:  # [R] -> [R]
        """The term times the factor."""
        return term * placed(self.of(term.shape[0]), term.device)
