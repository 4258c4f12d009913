"""Counter-based sampling: which rows a step sees is a pure function of integers, not of state.

A position in a stream is mapped to a row by a keyed permutation (a mixed-radix Feistel network with
cycle walking), so an epoch visits each row exactly once, any device may compute any slice of any
step, and a resumed run draws what the uninterrupted one would have drawn.

Sources: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014
(splitmix64); Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (generalised
Feistel and cycle walking).
"""

import math
from hashlib import blake2b

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_ROUNDS = 4


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch shifts arithmetically)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(x: Tensor) -> Tensor:
    """Hash int64 to int64, bijectively; products wrap around on every device.

    >>> f"{splitmix64(torch.tensor([0])).item() % 2**64:016x}"
    'e220a8397b1dcdaf'
    """
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def uniform(x: Tensor) -> Tensor:
    """Map hashes (int64) to float64 in [0, 1) by their upper 53 bits."""
    return _shift(x, 11).to(torch.float64) * 2.0**-53


def stream_key(seeds: Tensor, *words: int | str) -> Tensor:  # [R] -> [R]
    """Key of a named random stream for each seed; words are integers or names of any length."""
    key = splitmix64(seeds.to(torch.int64))
    for word in words:
        number = word if isinstance(word, int) else _name_hash(word)
        key = splitmix64(key ^ (number % 2**63))
    return key


def normal_rows(
    key: Tensor, lo: int, hi: int, dim: int
) -> Tensor:  # [R] -> [R, hi - lo, dim] float64
    """Standard normal rows ``lo .. hi - 1`` of a table, each a function of the key and its number.

    Source: Box, Muller, "A note on the generation of random normal deviates", 1958.
    """
    pairs = -(-dim // 2)
    counter = 2 * torch.arange(lo * pairs, hi * pairs, device=key.device)
    first, second = (
        uniform(splitmix64(key[:, None] ^ splitmix64(counter + which))) for which in (0, 1)
    )
    radius, angle = torch.sqrt(-2.0 * torch.log1p(-first)), 2.0 * math.pi * second
    both = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return both.view(len(key), hi - lo, 2 * pairs)[..., :dim]


def _name_hash(name: str) -> int:
    """Hash of a whole name, so that names with a common beginning have streams of their own."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def generator_seed(seed: int, *words: int | str) -> int:
    """Non-negative seed for a ``torch.Generator``, as a function of a seed and a purpose."""
    return int(stream_key(torch.tensor([seed]), *words).item()) & (2**63 - 1)


class Permutation:
    """A family of keyed permutations of ``range(size)``, or of ``range(rows * columns)``.

    Args:
        size: Number of elements, at least 1.
        columns: Optional divisor of ``size``; the domain is then split as rows x columns exactly
            and no cycle walking is needed (users x items).
    """

    def __init__(self, size: int, columns: int | None = None) -> None:
        if size < 1 or (columns is not None and size % columns):
            raise ValueError(f"A permutation needs size >= 1 divided by columns, got {size}.")
        if max(columns or 0, size // (columns or size)) >= 2**31:
            raise ValueError("A permutation takes fewer than 2^31 users and 2^31 items.")
        self.size = size
        self.right = columns or max(1, math.isqrt(size))
        self.left = -(-size // self.right)

    def __call__(self, positions: Tensor, key: Tensor) -> Tensor:
        """Map ``positions`` (any shape, in [0, size)) under ``key`` (broadcastable)."""
        return self._walk(positions, key, inverse=False)

    def inverse(self, rows: Tensor, key: Tensor) -> Tensor:
        """Undo ``__call__`` with the same key."""
        return self._walk(rows, key, inverse=True)

    def _walk(self, x: Tensor, key: Tensor, *, inverse: bool) -> Tensor:
        y = self._feistel(x, key, inverse)
        if self.left * self.right == self.size:
            return y
        # Outside the domain (fewer than sqrt(size) points): apply again until inside.
        if y.device.type != "cpu":  # where asking which are outside would wait for the device
            for _ in range(self._most_walks):
                y = torch.where(y >= self.size, self._feistel(y, key, inverse), y)
            return y
        outside = y >= self.size
        if bool(outside.any()):
            keys = key.expand_as(y)[outside]
            y.masked_scatter_(outside, self._led_inside(y[outside], keys, inverse))
        return y

    def _led_inside(self, x: Tensor, key: Tensor, inverse: bool) -> Tensor:  # [N], [N] -> [N]
        """Apply it to points outside until each is inside."""
        x = self._feistel(x, key, inverse)
        outside = x >= self.size
        if bool(outside.any()):
            x[outside] = self._led_inside(x[outside], key[outside], inverse)
        return x

    @property
    def _most_walks(self) -> int:
        """Applications after which a point is inside: surely, or but for one in 2^100."""
        size = self.left * self.right
        outside = size - self.size
        return min(outside, math.ceil(100 / math.log2(size / outside)))

    def _feistel(self, x: Tensor, key: Tensor, inverse: bool) -> Tensor:
        left = torch.div(x, self.right, rounding_mode="trunc")
        right = x - left * self.right
        rounds = range(_ROUNDS)
        for number in reversed(rounds) if inverse else rounds:
            if number % 2 == 0:
                _turn(left, _round(right, key, number, self.left), self.left, inverse)
            else:
                _turn(right, _round(left, key, number, self.right), self.right, inverse)
        return left.mul_(self.right).add_(right)


def _round(x: Tensor, key: Tensor, number: int, modulus: int) -> Tensor:
    """Hash into ``range(modulus)``: 31 mixed bits, scaled instead of divided."""
    mixed = x ^ (key + number * _GOLDEN % 2**62)
    mixed.mul_(_MIX_1)
    mixed.bitwise_xor_(mixed >> 32).mul_(_MIX_2)
    mixed.bitwise_right_shift_(33).bitwise_and_(2**31 - 1)
    return mixed.mul_(modulus).bitwise_right_shift_(31)


def _turn(half: Tensor, by: Tensor, modulus: int, back: bool) -> None:
    """Add (or subtract) modulo ``modulus``, in place; both are in range."""
    if back:
        half.sub_(by)
        half.add_((half < 0) * modulus)
    else:
        half.add_(by)
        half.sub_((half >= modulus) * modulus)


class EpochStream:
    """An endless stream of rows: epoch after epoch, each a fresh permutation of ``range(size)``.

    Args:
        permutation: The domain that is permuted.
        key: ``[R]`` key of the stream, one for each replica.
    """

    def __init__(self, permutation: Permutation, key: Tensor) -> None:
        self.permutation = permutation
        self.key = key

    def rows(self, first: int, count: int, lo: int, hi: int, batch: int) -> Tensor:
        """Rows of batches ``first .. first + count - 1``, of each the columns ``lo .. hi - 1``.

        Returns:
            ``[R, count, hi - lo]`` int64.
        """
        device, size = self.key.device, self.permutation.size
        steps = torch.arange(first, first + count, device=device)
        positions = steps[:, None] * batch + torch.arange(lo, hi, device=device)  # [S, b]
        first_epoch, last_epoch = first * batch // size, ((first + count) * batch - 1) // size
        epochs = torch.arange(first_epoch, last_epoch + 1, device=device)
        keys = splitmix64(self.key[:, None] + epochs)  # [R, epochs]
        epoch = positions // size
        key = keys[:, (epoch - first_epoch).flatten()].view(-1, *positions.shape)
        return self.permutation((positions - epoch * size).expand_as(key), key)
