"""What was rated around a pair: its statistic, the density of that, and the weights they give."""

from typing import Any

import torch
from torch import Tensor, nn

from upo.core.distributed import batch_mean
from upo.core.layers import ReplicaLinear, Sizes
from upo.errors import InputError
from upo.functional.exposure import neighbour_count, neighbourhood_factor
from upo.functional.propensity import clip_propensity
from upo.models.estimator import Estimator
from upo.models.weighting import ClippedPropensity
from upo.pairs import Pairs, training_rows

GRID = 8  # points of the support at which the uniform density is integrated
ODDS = 19.0  # of a density against the uniform one, at most, and its inverse at least


class ExposureDensity(nn.Module):
    r"""Density ratio of g given a pair's features against the uniform one, among observed pairs.

    A classifier tells g of observed pairs from uniform ones on the support; its odds are the ratio.
    g is read in standard deviations from its mean over the log.

    Source: Li et al., ICLR 2024. Differs: features are those of a frozen network that learned
    ratings, not of one that knows degrees, of which g is a function.

    Args:
        sizes: Users, items and seeds.
        dim: Embedding size of the representation; a pair has ``2 * dim`` features.
        hidden: Width of the hidden layer, at least 1.
        targets: Values of g at which the loss is wanted, at least 1: quantiles of g over D.
        width: h of the kernel in standard deviations of g over the log, above 0; ``inf`` for none.
        representation: Role of the frozen network.
        purpose: Name of the network.

    Raises:
        InputError: If a number is out of range.
    """

    replayable = True

    user_degree: Tensor
    item_degree: Tensor
    center: Tensor
    scale: Tensor
    support: Tensor
    targets: Tensor
    level: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        hidden: int = 16,
        targets: int = 4,
        width: float = 1.0,
        representation: str = "representation",
        purpose: str = "exposure",
    ) -> None:
        super().__init__()
        if hidden < 1 or targets < 1 or not width > 0:
            raise InputError(
                "estimator.networks.exposure needs hidden and targets of at least 1 and a width "
                f"above 0, got hidden={hidden}, targets={targets}, width={width}; try 16, 4, 1."
            )
        self.width, self.representation = width, representation
        replicas, seeds = len(sizes.seeds), sizes.seeds
        self.inner = ReplicaLinear(2 * dim + 1, hidden, seeds=seeds, purpose=purpose, gain=2**0.5)
        self.outer = ReplicaLinear(hidden, 1, seeds=seeds, purpose=purpose + "o")
        for name, size in (
            ("user_degree", sizes.n_users),
            ("item_degree", sizes.n_items),
            ("center", 1),
            ("support", 2),
            ("targets", targets),
        ):
            self.register_buffer(name, torch.zeros(replicas, size))
        self.register_buffer("scale", torch.ones(replicas, 1))
        self.register_buffer("level", torch.ones(replicas, 1))

    @torch.no_grad()
    def place(self, estimator: Estimator) -> None:
        """Count the log; the statistic's scale, support and targets follow from it."""
        space = estimator.space
        users = torch.div(space.keys, space.n_items, rounding_mode="floor")
        items = space.keys - users * space.n_items
        for table, index in ((self.user_degree, users), (self.item_degree, items)):
            counts = (
                table[0]
                .new_zeros(table.shape[1])
                .index_add(0, index, torch.ones_like(index, dtype=table.dtype))
            )
            table.copy_(counts.expand_as(table))
        raw = (self.user_degree[:1].gather(1, users[None]) - 1.0) + (
            self.item_degree[:1].gather(1, items[None]) - 1.0
        )
        spread = raw.std(correction=0)
        self.center.copy_(raw.mean().expand_as(self.center))
        self.scale.copy_(spread.clamp(min=1.0).expand_as(self.scale))
        observed = (raw - raw.mean()) / spread.clamp(min=1.0)
        self.support.copy_(torch.stack([observed.amin(), observed.amax() + 1e-6])[None])
        # of D: a user's and an item's degree are independent there
        count = self.targets.shape[1]
        at = (torch.arange(count, device=raw.device) + 0.5) / count
        grid = torch.linspace(0, 1, 65, device=raw.device)[:-1] + 1 / 128
        u, i = (t[0].sort().values[(grid * t.shape[1]).long()] for t in self._degrees())
        both = (u[:, None] + i[None]).flatten().sort().values
        chosen = both[(at * len(both)).long()]
        chosen = ((chosen - raw.mean()) / spread.clamp(min=1.0)).clamp(*self.support[0].unbind())
        self.targets.copy_(chosen.expand_as(self.targets))

    def _degrees(self) -> tuple[Tensor, Tensor]:
        return self.user_degree, self.item_degree

    @torch.no_grad()
    def settle(self, estimator: Estimator) -> None:
        """Scale the factors to a mean of 1 over the training rows."""
        self.level.fill_(1.0)
        found = [self.factor(estimator, rows) for rows in training_rows(estimator.space)]
        self.level.copy_(batch_mean(torch.cat(found, dim=1))[:, None].clamp(min=1e-12))

    def statistic(self, pairs: Pairs) -> Tensor:  # [R, B]
        """G of the pairs, standardised."""
        degrees = self.user_degree.gather(1, pairs.users), self.item_degree.gather(1, pairs.items)
        return (neighbour_count(*degrees, pairs.o) - self.center) / self.scale

    def logit(self, features: Tensor, g: Tensor) -> Tensor:  # [R, B, 2 * dim], [R, B] -> [R, B]
        """Logit that g belongs to the features rather than to the uniform density."""
        x = torch.cat([features, g.unsqueeze(-1)], dim=-1)
        found: Tensor = self.outer(torch.relu(self.inner(x))).squeeze(-1)
        return found

    def grid(self) -> Tensor:  # [R, GRID]
        """Mid-points of equal parts of the support."""
        low, high = self.support[:, :1], self.support[:, 1:]
        place = (torch.arange(GRID, device=low.device, dtype=low.dtype) + 0.5) / GRID
        return low + (high - low) * place

    @torch.no_grad()
    def factor(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Factor of each pair's inverse propensity, of mean 1 over the training rows; frozen."""
        features, g = estimator.features(self.representation, pairs), self.statistic(pairs)
        at = self.targets.unsqueeze(-1).expand(-1, -1, g.shape[1])  # [R, J, B]
        odds = torch.stack([self.logit(features, t) for t in at.unbind(1)], dim=1).exp()
        density = (
            odds.clamp(1 / ODDS, ODDS) / (self.support[:, 1:] - self.support[:, :1])[..., None]
        )
        return neighbourhood_factor(g, self.targets, density, self.width) / self.level

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Where the statistic of the pairs lies, were they not observed."""
        both = self.user_degree.gather(1, users) + self.item_degree.gather(1, items)
        return (both - self.center) / self.scale


class NeighbourhoodWeight(ClippedPropensity):
    """The propensity over the neighbourhood's factor: 1 / p_hat is then the weight of N-IPS.

    The propensity that is diagnosed is the learned one.

    Args:
        exposure: Role of the ``ExposureDensity``.
        **clip: See ``ClippedPropensity``; the clip bounds the weight as it bounds those of IPS.
    """

    replayable = True

    def __init__(self, *, exposure: str = "exposure", **clip: Any) -> None:
        super().__init__(**clip)
        self.exposure = exposure

    def p_hat(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Clipped propensities that divide ``[R, B]``."""
        return clip_propensity(self.divisor(estimator, pairs), self._floor(estimator))

    def divisor(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """The same without a clip."""
        network = estimator.network(self.exposure)
        factor = network.factor(estimator, pairs)  # type: ignore[operator]
        raw: Tensor = estimator.probability(estimator.calibrated(self.network), pairs)
        divisor: Tensor = raw / factor.clamp(min=1e-12)
        return divisor
