"""A propensity raked to the totals of users and items."""

import torch
from torch import Tensor

from upo.core.layers import Sizes
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs


class RakedPropensity(Derived):
    r"""Logits of a propensity plus a term for each user and item: :math:`z_{ui}+s_u+t_i`.

    The terms are 0 until ``upo.learners.raking.Raking`` sets them.

    Args:
        sizes: Users, items and seeds.
        source: Role of the propensity.
        purpose: Name of the network.
    """

    replayable = True
    whole_tables = "keeps a term of every user and item on each"

    user: Tensor
    item: Tensor

    def __init__(self, sizes: Sizes, *, source: str = "propensity", purpose: str = "raked") -> None:
        super().__init__((source,))
        self.register_buffer("user", torch.zeros(len(sizes.seeds), sizes.n_users))
        self.register_buffer("item", torch.zeros(len(sizes.seeds), sizes.n_items))

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logits of the raked propensity."""
        terms = self.user.gather(1, pairs.users) + self.item.gather(1, pairs.items)
        return estimator.logit(self.sources[0], pairs) + terms
