"""Propensity networks: the logit of P(observed) for any pair of D."""

import math

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, Sizes, dot, normal
from upo.core.optim import Hyper
from upo.models.factorization import check_dim


class AdditivePropensity(nn.Module):
    r"""The field's "logistic" propensity: :math:`w^\top [U_u; V_i] + c`, additive in user and item.

    There is no hidden layer, so the logit is :math:`a_u + b_i + c`. It is evaluated in that form
    whenever a batch has more pairs than there are users and items.

    Args:
        sizes: Users, items, seeds and density.
        dim: Embedding size; the adversary sees ``2 * dim`` features.
        init_std: Standard deviation of the initial embeddings.
        init_logit: Initial value of the intercept; None for the logit of |O| / |D|.
        purpose: Name of the network.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        init_std: Hyper = 0.1,
        init_logit: float | None = None,
        purpose: str = "propensity",
    ) -> None:
        super().__init__()
        check_dim(dim)
        self.dim = dim
        seeds = sizes.seeds
        self.user = ReplicaEmbedding(
            sizes.n_users, dim, seeds=seeds, std=init_std, purpose=purpose + "u"
        )
        self.item = ReplicaEmbedding(
            sizes.n_items, dim, seeds=seeds, std=init_std, purpose=purpose + "i"
        )
        std = (2 * dim) ** -0.5
        self.head = nn.Parameter(normal(seeds, (2 * dim, 1), std, purpose + "h"))
        if init_logit is None:
            density = min(sizes.density, 1 - 1e-6)  # every pair may be observed
            init_logit = math.log(density / (1 - density))
        self.intercept = nn.Parameter(torch.full((len(seeds), 1), float(init_logit)))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logits of the pairs."""
        if users.shape[-1] * 2 < self.user.n + self.item.n:
            logit = dot(self.features(users, items), self.head)
            return logit.squeeze(-1) + self.intercept
        a = dot(self.user.tables(), self.head[:, : self.dim]).squeeze(-1)  # [R, n_users]
        b = dot(self.item.tables(), self.head[:, self.dim :]).squeeze(-1)  # [R, n_items]
        return a.gather(1, users) + b.gather(1, items) + self.intercept

    def features(self, users: Tensor, items: Tensor) -> Tensor:  # -> [R, B, 2 * dim]
        """Representation :math:`[U_u; V_i]` of the pairs."""
        return torch.cat([self.user(users), self.item(items)], dim=-1)
