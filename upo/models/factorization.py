"""Matrix factorisation and neural collaborative filtering with a replica axis."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, ReplicaLinear, Sizes
from upo.core.optim import Hyper
from upo.errors import InputError


def check_dim(dim: int) -> int:
    """Return a valid embedding size.

    Raises:
        InputError: If ``dim`` is below 1.
    """
    if dim < 1:
        raise InputError(f"dim must be at least 1, got {dim}; try 16.")
    return dim


def _table(n: int, dim: int, sizes: Sizes, std: Hyper, purpose: str) -> ReplicaEmbedding:
    return ReplicaEmbedding(n, dim, seeds=sizes.seeds, std=std, purpose=purpose)


class MatrixFactorization(nn.Module):
    r"""Logits :math:`\langle U_u, V_i\rangle`, with optional user, item and global biases.

    Source: Koren, Bell, Volinsky, "Matrix factorization techniques", Computer 2009, eq. (2), (5).

    Args:
        sizes: Users, items and seeds.
        dim: Embedding size, at least 1.
        init_std: Standard deviation of the initial embeddings; the field's scripts use 1.
        biases: Add user, item and global biases.
        purpose: Name of the network; networks of other names start elsewhere.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        init_std: Hyper = 1.0,
        biases: bool = False,
        purpose: str = "mf",
    ) -> None:
        super().__init__()
        check_dim(dim)
        self.user = _table(sizes.n_users, dim, sizes, init_std, purpose + "u")
        self.item = _table(sizes.n_items, dim, sizes, init_std, purpose + "i")
        self.bias: Biases | None = Biases(sizes) if biases else None

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        logit: Tensor = (self.user(users) * self.item(items)).sum(-1)
        if self.bias is not None:
            logit = logit + self.bias(users, items)
        return logit

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # -> [R, B, 2 * dim]
        """Representation :math:`[U_u; V_i]` of the pairs."""
        return torch.cat([self.user(users), self.item(items)], dim=-1)


class Biases(nn.Module):
    """Additive logit: user bias + item bias + global bias, all starting at 0."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.user = _table(sizes.n_users, 1, sizes, 0.0, "bu")
        self.item = _table(sizes.n_items, 1, sizes, 0.0, "bi")
        self.globe = nn.Parameter(torch.zeros(len(sizes.seeds), 1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B]
        """Sum of the three biases."""
        both: Tensor = self.user(users) + self.item(items)
        return both.squeeze(-1) + self.globe


class NeuralCollaborativeFiltering(nn.Module):
    """Logits of a multilayer perceptron on :math:`[U_u; V_i]` with real hidden layers.

    Source: He et al., "Neural collaborative filtering", WWW 2017, section 3.3 (MLP part).

    Args:
        sizes: Users, items and seeds.
        dim: Embedding size.
        hidden: Widths of the hidden layers, at least one.
        init_std: Standard deviation of the initial embeddings.
        purpose: Name of the network.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        hidden: list[int],
        init_std: Hyper = 0.1,
        purpose: str = "ncf",
    ) -> None:
        super().__init__()
        check_dim(dim)
        if not hidden or min(hidden) < 1:
            raise InputError(f"hidden must list layer widths of at least 1, got {hidden}.")
        self.user = _table(sizes.n_users, dim, sizes, init_std, purpose + "u")
        self.item = _table(sizes.n_items, dim, sizes, init_std, purpose + "i")
        widths = [2 * dim, *hidden, 1]
        self.layers = nn.ModuleList(
            ReplicaLinear(a, b, seeds=sizes.seeds, purpose=f"{purpose}{n}", gain=2**0.5)
            for n, (a, b) in enumerate(pairwise(widths))
        )

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # -> [R, B, 2 * dim]
        """Representation :math:`[U_u; V_i]` of the pairs."""
        return torch.cat([self.user(users), self.item(items)], dim=-1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        x = self.features(users, items)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x).squeeze(-1)  # type: ignore[no-any-return]
