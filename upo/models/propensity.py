"""Propensity networks: the logit of P(observed) for any pair of D."""

import math

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, Sizes, dot, normal
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.functional.margins import margin_logits
from upo.models.factorization import check_dim
from upo.models.plain import Plain


class AdditivePropensity(nn.Module):
    r"""The field's "logistic" propensity: :math:`w^\top [U_u; V_i] + c`, additive in user and item.

    There is no hidden layer, so the logit is :math:`a_u + b_i + c`. It is evaluated in that form
    whenever a batch has more pairs than there are users and items.

    With ``start: margins`` the first column of each representation is a term of its own, whose
    weight is 1, and the other ``dim - 1`` columns are embeddings whose weights start at 0:
    with :math:`n_u` observed training cells of a user, :math:`\bar n` their mean over users and s
    pseudo-cells, the mean propensity of user u over the items starts at

    .. math:: \frac{|O|}{|D|}\cdot\frac{n_u+s}{\bar n+s}

    and that of an item likewise: ``upo.functional.margins`` finds the terms. Where propensities are
    small they are the logarithms of the last factor. The network is right on average before its
    first step, whatever the size and the density of the log.

    Args:
        sizes: Users, items, seeds and density.
        dim: Embedding size; the adversary sees ``2 * dim`` features.
        init_std: Standard deviation of the initial embeddings.
        init_logit: Initial value of the intercept; None for the logit of |O| / |D|.
        start: ``density``, all pairs alike, or ``margins``; the latter needs ``dim`` of at least 2.
        smoothing: s above 0; None for as many as the spread of the margins beyond chance says.
        purpose: Name of the network.

    Raises:
        InputError: If a setting is unknown or out of range.
    """

    replayable = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        init_std: Hyper = 0.1,
        init_logit: float | None = None,
        start: str = "density",
        smoothing: float | None = None,
        purpose: str = "propensity",
    ) -> None:
        super().__init__()
        check_dim(dim)
        if start not in ("density", "margins"):
            raise InputError(f"start of a propensity must be density or margins, got {start!r}.")
        if smoothing is not None and not 0 < smoothing < math.inf:
            raise InputError(f"smoothing of a propensity must be positive, got {smoothing}; try 1.")
        seeds = sizes.seeds
        self.terms: MarginTerms | None = None
        if start == "margins":
            if dim < 2:
                raise InputError(f"start=margins needs dim of at least 2, got {dim}; try 16.")
            self.terms = MarginTerms(sizes, smoothing)
        self.dim = dim if self.terms is None else dim - 1
        self.user = ReplicaEmbedding(
            sizes.n_users, self.dim, seeds=seeds, std=init_std, purpose=purpose + "u"
        )
        self.item = ReplicaEmbedding(
            sizes.n_items, self.dim, seeds=seeds, std=init_std, purpose=purpose + "i"
        )
        std = (2 * dim) ** -0.5 if self.terms is None else 0.0
        self.head = nn.Parameter(normal(seeds, (2 * self.dim, 1), std, purpose + "h"))
        if init_logit is None:
            density = min(sizes.density, 1 - 1e-6)  # every pair may be observed
            init_logit = math.log(density / (1 - density))
        self.intercept = nn.Parameter(torch.full((len(seeds), 1), float(init_logit)))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        if users.shape[-1] * 2 < self.user.n + self.item.n or self.user.shard is not None:
            both = torch.cat([self.user(users), self.item(items)], dim=-1)
            logit = dot(both, self.head).squeeze(-1) + self.intercept
        else:
            a = dot(self.user.tables(users), self.head[:, : self.dim]).squeeze(-1)  # [R, n_users]
            b = dot(self.item.tables(items), self.head[:, self.dim :]).squeeze(-1)  # [R, n_items]
            logit = a.gather(1, users) + b.gather(1, items) + self.intercept
        return logit if self.terms is None else logit + self.terms(users, items)

    def plain(self) -> Plain:
        """A column of the user and one of the item; there is no product."""
        tables = [x.tables().detach() for x in (self.user, self.item)]
        heads = self.head.detach()[:, : self.dim], self.head.detach()[:, self.dim :]
        bias = [dot(table, head).squeeze(-1) for table, head in zip(tables, heads, strict=True)]
        if self.terms is not None:
            own = (x.tables().detach().squeeze(-1) for x in (self.terms.user, self.terms.item))
            bias = [b + term for b, term in zip(bias, own, strict=True)]
        user, item = (table[..., :0] for table in tables)
        return Plain(user, item, bias[0] + self.intercept.detach(), bias[1])

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # -> [R, B, 2 * dim]
        """Representation :math:`[U_u; V_i]` of the pairs, its terms first in each half."""
        parts = [self.user(users), self.item(items)]
        if self.terms is not None:
            a, b = self.terms.user(users), self.terms.item(items)
            parts = [a, parts[0], b, parts[1]]
        return torch.cat(parts, dim=-1)


class MarginTerms(nn.Module):
    """Terms of user and item, which start where the propensity has smoothed margins.

    Args:
        sizes: Users, items and seeds; without a log, all terms start at 0.
        smoothing: Pseudo-cells of each user and item, above 0; None to find them.
    """

    def __init__(self, sizes: Sizes, smoothing: float | None) -> None:
        super().__init__()
        self.user, self.item = (
            ReplicaEmbedding(n, 1, seeds=sizes.seeds, std=0.0, purpose="terms")
            for n in (sizes.n_users, sizes.n_items)
        )
        if sizes.log is None:
            return
        users, items = (counts.cpu() for counts in sizes.log.cells_by_id())
        center = math.log(sizes.density / (1 - sizes.density)) if sizes.density < 1 else 0.0
        for r, (a, b) in enumerate(margin_logits(users, items, sizes.density, smoothing)):
            self.user.put(r, a[:, None])
            self.item.put(r, b[:, None] - center)  # the intercept starts there

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B]
        """Sum of the two terms."""
        both: Tensor = self.user(users) + self.item(items)
        return both.squeeze(-1)
