"""A set of numbers as one bit each, which is quicker to ask than a sorted list is to search."""

import torch
from torch import Tensor

BYTES_PER_MEMBER = 8  # at most: as much as the sorted int64 list takes


def affordable(members: int, size: int) -> bool:
    """Whether the bits of ``range(size)`` take no more memory than a list of the members."""
    return size <= 8 * BYTES_PER_MEMBER * members


def bit_set(members: Tensor, size: int) -> Tensor:
    """Bits of the members of ``range(size)``.

    Args:
        members: ``[N]`` distinct int64 numbers in ``range(size)``.
        size: Numbers that may be asked for.

    Returns:
        ``[ceil(size / 8)]`` uint8.
    """
    bits = torch.zeros(-(-size // 8), dtype=torch.uint8, device=members.device)
    ones = torch.ones((), dtype=torch.int64, device=members.device) << (members & 7)
    return bits.index_add_(0, members >> 3, ones.to(torch.uint8))  # each bit once: no carry


def contains(bits: Tensor, numbers: Tensor) -> Tensor:
    """Whether each number (any shape, int64, in range) is a member; bool of that shape."""
    byte = bits[numbers >> 3].bitwise_right_shift_((numbers & 7).to(torch.uint8))
    return byte.bitwise_and_(1).bool()
