"""Matrix factorisation and neural collaborative filtering with a replica axis.

Where embeddings start is given as a standard deviation, ``init_std``, or in units of
1 / sqrt(dim), ``init_scale``: an embedding's length is then about init_scale, whatever its size.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, ReplicaLinear, Sizes
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.models.plain import Plain

STARTS = ("zero", "rate", "density")


def check_dim(dim: int) -> int:
    """Return a valid embedding size.

    Raises:
        InputError: If ``dim`` is below 1.
    """
    if dim < 1:
        raise InputError(f"dim must be at least 1, got {dim}; try 16.")
    return dim


def start_std(
    dim: int, init_std: Hyper | None, init_scale: Hyper | None, default: float
) -> float | Tensor:
    """Initial standard deviation of embeddings.

    Raises:
        InputError: If both ways of saying it are used, or ``dim`` is below 1.
    """
    check_dim(dim)
    if init_std is not None and init_scale is not None:
        raise InputError(
            f"init_std={init_std} and init_scale={init_scale} both say where embeddings start; "
            "set one of them to null."
        )
    given, unit = (init_std, 1.0) if init_scale is None else (init_scale, dim**-0.5)
    if given is None:
        return default
    if isinstance(given, int | float):
        return float(given) * unit
    return torch.tensor([float(x) for x in given]) * unit


def start_logit(sizes: Sizes, start: str) -> Tensor:  # [R]
    """Where a global term starts: at 0, at the mean training label, or at the logit of a share.

    What predicts the mean label is the logit of the share of positive ones, of which 0 or 1 is read
    as 1e-4 from there, or the mean rating. The share is |O| / |D|, for a propensity.

    Raises:
        InputError: If ``start`` is unknown.
    """
    if start not in STARTS:
        raise InputError(f"start of a network must be one of {list(STARTS)}, got {start!r}.")
    if start == "density":
        density = torch.tensor(min(sizes.density, 1 - 1e-6))
        return torch.logit(density).expand(len(sizes.seeds)).clone()
    if start == "zero" or sizes.log is None:
        return torch.zeros(len(sizes.seeds))
    return sizes.log.mean_output().cpu().float()


class Embeddings(nn.Module):
    """A vector for each user and each item.

    Args:
        sizes: Users, items and seeds.
        dim: Its length, at least 1.
        std: Standard deviation of its entries, at first.
        purpose: Name of the network, part of the seed.

    Raises:
        InputError: If ``dim`` is below 1.
    """

    def __init__(self, sizes: Sizes, dim: int, std: Hyper, purpose: str) -> None:
        super().__init__()
        self.user, self.item = (
            ReplicaEmbedding(n, check_dim(dim), seeds=sizes.seeds, std=std, purpose=purpose + side)
            for n, side in ((sizes.n_users, "u"), (sizes.n_items, "i"))
        )

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B, 2 * dim]
        """Representation :math:`[U_u; V_i]` of the pairs."""
        return torch.cat([self.user(users), self.item(items)], dim=-1)


class MatrixFactorization(Embeddings):
    r"""Logits :math:`\langle U_u, V_i\rangle`, with optional user, item and global biases.

    Source: Koren, Bell, Volinsky, "Matrix factorization techniques", Computer 2009, eq. (2), (5).

    Args:
        sizes: Users, items and seeds.
        dim: Embedding size, at least 1.
        init_std: Standard deviation of the initial embeddings; the field's scripts use 1.
        init_scale: The same in units of 1 / sqrt(dim).
        biases: Add user, item and global biases.
        start: Where the global bias starts: ``zero``, or ``rate``, the logit of the share of
            positive training labels.
        purpose: Name of the network; networks of other names start elsewhere.

    Raises:
        InputError: If a setting is out of range.
    """

    replayable = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        init_std: Hyper | None = None,
        init_scale: Hyper | None = None,
        biases: bool = False,
        start: str = "zero",
        purpose: str = "mf",
    ) -> None:
        super().__init__(sizes, dim, start_std(dim, init_std, init_scale, 1.0), purpose)
        self.bias: Biases | None = Biases(sizes, start) if biases else None

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        logit: Tensor = (self.user(users) * self.item(items)).sum(-1)
        if self.bias is not None:
            logit = logit + self.bias(users, items)
        return logit

    def plain(self) -> Plain:
        """Its tables, biases of 0 where there are none."""
        user, item = self.user.tables().detach(), self.item.tables().detach()
        if self.bias is None:
            return Plain(user, item, user.new_zeros(user.shape[:2]), item.new_zeros(item.shape[:2]))
        return Plain(user, item, *self.bias.columns())


class Biases(Embeddings):
    """Additive logit: user bias + item bias + global bias; those of users and items start at 0.

    Args:
        sizes: Users, items and seeds.
        start: Where the global bias starts, ``zero`` or ``rate``.
    """

    def __init__(self, sizes: Sizes, start: str = "zero") -> None:
        super().__init__(sizes, 1, 0.0, "b")
        self.globe = nn.Parameter(start_logit(sizes, start)[:, None])

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B]
        """Sum of the three biases."""
        both: Tensor = self.user(users) + self.item(items)
        return both.squeeze(-1) + self.globe

    def columns(self) -> tuple[Tensor, Tensor]:
        """``[R, n_users]``, the global bias in it, and ``[R, n_items]``; detached."""
        user, item = (x.tables().detach().squeeze(-1) for x in (self.user, self.item))
        return user + self.globe.detach(), item


class NeuralCollaborativeFiltering(Embeddings):
    """Logits of a multilayer perceptron on :math:`[U_u; V_i]` with real hidden layers.

    Source: He et al., "Neural collaborative filtering", WWW 2017, section 3.3 (MLP part).

    Args:
        sizes: Users, items and seeds.
        dim: Embedding size.
        hidden: Widths of the hidden layers, at least one.
        init_std: Standard deviation of the initial embeddings, .1 if nothing is given.
        init_scale: The same in units of 1 / sqrt(dim).
        start: Where the global term, the bias of the last layer, starts: ``zero`` or ``rate``.
        purpose: Name of the network.

    Raises:
        InputError: If a setting is out of range.
    """

    replayable = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        hidden: list[int],
        init_std: Hyper | None = None,
        init_scale: Hyper | None = None,
        start: str = "zero",
        purpose: str = "ncf",
    ) -> None:
        super().__init__(sizes, dim, start_std(dim, init_std, init_scale, 0.1), purpose)
        if not hidden or min(hidden) < 1:
            raise InputError(f"hidden must list layer widths of at least 1, got {hidden}.")
        widths = [2 * dim, *hidden, 1]
        self.layers = nn.ModuleList(
            ReplicaLinear(a, b, seeds=sizes.seeds, purpose=f"{purpose}{n}", gain=2**0.5)
            for n, (a, b) in enumerate(pairwise(widths))
        )
        last: Tensor = self.layers[-1].bias  # type: ignore[assignment]
        last.data.copy_(start_logit(sizes, start)[:, None, None])

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        x = self.features(users, items)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x).squeeze(-1)  # type: ignore[no-any-return]

    def plain(self) -> Plain:
        """Its tables and layers."""
        layers = [x for x in self.layers if isinstance(x, ReplicaLinear)]
        return Plain(
            self.user.tables().detach(),
            self.item.tables().detach(),
            layers=tuple((x.weight.detach(), x.bias.detach()) for x in layers),
        )
