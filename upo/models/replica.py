"""Building blocks with a leading replica axis: R independent networks in one tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upo.errors import InputError
from upo.optim import Hyper, per_replica
from upo.sampling import generator_seed


@dataclass(frozen=True)
class Sizes:
    """What a network must know of the data to be built.

    Attributes:
        n_users: Users, rows of D.
        n_items: Items, columns of D.
        seeds: One for each replica.
        density: |O| / |D| in (0, 1).
    """

    n_users: int
    n_items: int
    seeds: list[int]
    density: float = 0.5


def normal(
    seeds: list[int], shape: tuple[int, ...], std: Hyper, *purpose: str
) -> Tensor:  # [R, *shape]
    """Normal initial weights, each replica from its own generator, so a stack equals its parts.

    Args:
        seeds: One for each replica.
        shape: Shape of one replica's weights.
        std: Standard deviation >= 0; a number or one for each replica.
        purpose: Names that separate this draw from others of the same seed.

    Raises:
        InputError: If ``std`` is negative.
    """
    scale = per_replica(std, len(seeds), "init_std")
    if not bool((torch.as_tensor(scale) >= 0).all()):
        raise InputError(f"init_std must be at least 0, got {std}; try 0.1.")
    weights = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(generator_seed(seed, "init", *purpose))
        weights.append(torch.randn(shape, generator=generator))
    stack = torch.stack(weights)
    return stack * torch.as_tensor(scale, dtype=stack.dtype).view(-1, *[1] * len(shape))


class ReplicaEmbedding(nn.Module):
    """Tables of all replicas as one ``[R * n, dim]`` table, looked up at ``index + r * n``.

    Args:
        n: Rows of one replica's table.
        dim: Columns.
        seeds: One for each replica.
        std: Initial standard deviation.
        purpose: Name of the table, part of the seed.
    """

    offset: Tensor

    def __init__(self, n: int, dim: int, *, seeds: list[int], std: Hyper, purpose: str) -> None:
        super().__init__()
        self.n, self.dim, self.replicas = n, dim, len(seeds)
        table = normal(seeds, (n, dim), std, purpose)
        self.weight = nn.Parameter(table.view(self.replicas * n, dim))
        offset = torch.arange(self.replicas)[:, None] * n
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, index: Tensor) -> Tensor:  # [R, B] -> [R, B, dim]
        """Rows of each replica's own table."""
        # not nn.functional.embedding: on the CPU its backward takes three times as long
        rows = index if self.replicas == 1 else index + self.offset
        rows = self.weight.index_select(0, rows.reshape(-1))
        return rows.view(*index.shape, self.dim)

    def tables(self) -> Tensor:
        """``[R, n, dim]`` view of the tables."""
        return self.weight.view(self.replicas, self.n, self.dim)


class ReplicaLinear(nn.Module):
    """R independent affine maps.

    Args:
        fan_in: Input width.
        fan_out: Output width.
        seeds: One for each replica.
        purpose: Name of the layer, part of the seed.
        gain: Initial standard deviation is ``gain / sqrt(fan_in)``.
    """

    def __init__(
        self, fan_in: int, fan_out: int, *, seeds: list[int], purpose: str, gain: float = 1.0
    ) -> None:
        super().__init__()
        std = gain / fan_in**0.5
        self.weight = nn.Parameter(normal(seeds, (fan_in, fan_out), std, purpose))
        self.bias = nn.Parameter(torch.zeros(len(seeds), 1, fan_out))

    def forward(self, x: Tensor) -> Tensor:  # [R, B, in] -> [R, B, out]
        """Apply each replica's map to its own rows."""
        if self.weight.shape[-1] == 1:
            return dot(x, self.weight) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


def dot(x: Tensor, weight: Tensor) -> Tensor:  # [R, B, in], [R, in, 1] -> [R, B, 1]
    """``x @ weight``, which on the CPU takes three times as long."""
    return (x * weight.mT).sum(-1, keepdim=True)
