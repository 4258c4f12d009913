"""Fixed pairs of D with features of a trained network: kernel anchors, nearest neighbours."""

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.core.sampling import EpochStream, stream_key
from upo.errors import InputError
from upo.functional.kernels import unit_range
from upo.models.estimator import Estimator
from upo.models.factorization import check_dim
from upo.pairs import Pairs


class ReferencePairs(nn.Module):
    """A set of pairs of D, drawn once from the counter-based stream, and their scaled features.

    Every device and a resumed run have the same set. A set larger than D repeats pairs.

    Args:
        sizes: Seeds.
        dim: Embedding size of the representation; a pair has ``2 * dim`` features.
        count: Pairs in the set, at least 1.
        purpose: Name of the network, part of the stream's key.

    Raises:
        InputError: If a size is below 1.
    """

    whole_tables = "compares features on the range of whole tables"

    features: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, sizes: Sizes, *, dim: int, count: int, purpose: str) -> None:
        super().__init__()
        check_dim(dim)
        if count < 1:
            raise InputError(f"{purpose} needs at least one pair of D, got {count}; try 512.")
        self.count, self.purpose = count, purpose
        replicas = len(sizes.seeds)
        self.register_buffer("features", torch.zeros(replicas, count, 2 * dim))
        self.register_buffer("low", torch.zeros(replicas, 2 * dim))
        self.register_buffer("high", torch.ones(replicas, 2 * dim))

    @torch.no_grad()
    def place(self, estimator: Estimator, representation: str) -> Pairs:
        """Draw the set, take its features from a trained network, and return its pairs."""
        space = estimator.space
        stream = EpochStream(space.order(), stream_key(space.seeds, self.purpose))
        drawn = stream.rows(0, 1, 0, min(self.count, space.n_pairs), space.n_pairs)[:, 0]
        again = torch.arange(self.count, device=drawn.device) % drawn.shape[-1]
        pairs = space.pairs(drawn[:, again], self.count)
        network = estimator.networks[representation]
        tables = [network.user.tables(), network.item.tables()]  # type: ignore[union-attr, operator]
        self.low.copy_(torch.cat([t.amin(1) for t in tables], dim=-1))
        self.high.copy_(torch.cat([t.amax(1) for t in tables], dim=-1))
        self.features.copy_(self.scaled(estimator.features(representation, pairs)))
        return pairs

    def scaled(self, features: Tensor) -> Tensor:  # [R, B, 2 * dim]
        """Features on the range [0, 1] of the whole tables."""
        return unit_range(features, self.low, self.high)


class Neighbours(ReferencePairs):
    """Estimates the propensity of a pair as the observed share of its k nearest pairs in the set.

    The pair itself, which may be in the set, is no neighbour of its own.

    Args:
        sizes: Seeds.
        dim: Embedding size of the representation.
        k: Neighbours, at least 2.
        count: Pairs in the set, more than k. Memory of a step is O(batch x count).
        purpose: Name of the network, part of the stream's key.

    Raises:
        InputError: If ``k`` is out of range.
    """

    replayable = True

    keys: Tensor
    observed: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        k: int = 25,
        count: int = 4096,
        purpose: str = "neighbours",
    ) -> None:
        super().__init__(sizes, dim=dim, count=count, purpose=purpose)
        if not 2 <= k < count:
            raise InputError(
                f"estimator.networks.neighbours.k must lie in 2..count - 1 ({count - 1}), "
                f"got {k}; try 25."
            )
        self.k = k
        self.register_buffer("keys", torch.zeros(len(sizes.seeds), count, dtype=torch.int64))
        self.register_buffer("observed", torch.zeros(len(sizes.seeds), count))

    @torch.no_grad()
    def place(self, estimator: Estimator, representation: str) -> Pairs:
        """Draw the set and note which of its pairs are observed."""
        pairs = super().place(estimator, representation)
        self.keys.copy_(pairs.users * estimator.space.n_items + pairs.items)
        self.observed.copy_(pairs.o)
        return pairs

    @torch.no_grad()
    def forward(self, features: Tensor, pairs: Pairs) -> Tensor:  # [R, B, 2 * dim] -> [R, B]
        """Observed share q of the k nearest pairs."""
        distance = torch.cdist(self.scaled(features), self.features)
        own = (pairs.users * pairs.space.n_items + pairs.items).unsqueeze(-1)
        distance = distance.masked_fill(own == self.keys.unsqueeze(1), torch.inf)
        nearest = distance.topk(self.k, dim=-1, largest=False).indices  # [R, B, k]
        observed = self.observed.unsqueeze(1).expand(-1, nearest.shape[1], -1)
        return observed.gather(-1, nearest).mean(-1)
