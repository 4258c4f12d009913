"""A simulated world of self-selected ratings: all of it is a pure function of (seed, user, item).

Ratings follow an ordinal logit of a low-rank score. Whether a rating is seen depends on the rating
itself, for some items strongly so (mostly those who like them rate them), for a few the other way
round. Items therefore look better or worse in the log than they are, which misleads a model that
ignores it: with the defaults, biased matrix factorisation of rank 4 reaches an AUC of 0.65 over all
pairs, 0.70 when weighted by the true inverse propensities, and 0.74 on as many uniform ratings.

The world is the same on every machine: scores lie on a grid where float64 sums are exact, and
probabilities are rounded to multiples of 2^-24 before a hash decides. Nothing of the size of the
pair space is kept: the log is made in blocks of users.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from upo.core.sampling import splitmix64
from upo.data.interactions import Interactions, LabelRule
from upo.errors import InputError

_CUTS = (-0.7, 0.4, 1.5, 2.7)  # scores at which a rating of 2, 3, 4, 5 becomes an even bet
_NOISE = 0.7  # scale of the logistic noise of a rating
_GRID = 2.0**24  # probabilities are multiples of 1 / _GRID
_LATENT_GRID = 2.0**12  # so products of two latents, and their sums, are exact in float64
_FLOOR = 1 / 128  # no pair is seen with a smaller probability, nor missed with one
_BLOCK = 1 << 13  # pairs looked at together: fits a cache, and waits for no second thread


class SyntheticWorld:
    """A simulated world of ratings 1..5 that answers for any pairs (it is a `Truth`).

    Args:
        n_users: Number of users.
        n_items: Number of items.
        dim: Rank of the taste term.
        seed: Another seed is another world.
        density: Mean of the propensity over all pairs, in [0.01, 0.5].
        label_rule: Which ratings are positive.
        rating_bias: Growth of the exposure logit with each step of the rating, on average; item by
            item it is uniform between -1 and 3 times that. 0 makes exposure independent of ratings.
        popularity_bias: Standard deviation of the item's term of the exposure logit.
        activity_bias: Standard deviation of the user's term of the exposure logit.
        feature_noise: Standard deviation of the noise on the observed features.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        n_users: int = 300,
        n_items: int = 300,
        *,
        dim: int = 4,
        seed: int = 0,
        density: float = 0.08,
        label_rule: LabelRule | None = None,
        rating_bias: float = 0.7,
        popularity_bias: float = 0.6,
        activity_bias: float = 0.6,
        feature_noise: float = 0.5,
    ) -> None:
        for key, value, low in (
            ("n_users", n_users, 2),
            ("n_items", n_items, 2),
            ("dim", dim, 1),
            ("rating_bias", rating_bias, 0),
            ("popularity_bias", popularity_bias, 0),
            ("activity_bias", activity_bias, 0),
            ("feature_noise", feature_noise, 0),
        ):
            if isinstance(value, str) or not low <= value < math.inf:
                raise InputError(f"dataset.{key} must be at least {low}, got {value}; raise it.")
        if isinstance(density, str) or not 0.01 <= density <= 0.5:
            raise InputError(f"dataset.density must lie in [0.01, 0.5], got {density}; try 0.08.")
        self.n_users, self.n_items, self.seed, self.density = n_users, n_items, seed, density
        self.label_rule = label_rule or LabelRule(3.0)
        self._lowest_positive = _lowest_positive(self.label_rule)
        self._taste = _normal(self._key("taste"), n_users, dim)
        self._trait = _normal(self._key("trait"), n_items, dim)
        self._mood = _grid(0.4 * _normal(self._key("mood"), n_users, 1)[:, 0])
        self._quality = _normal(self._key("quality"), n_items, 1)[:, 0]
        self._activity = activity_bias * _normal(self._key("activity"), n_users, 1)[:, 0]
        self._popularity = popularity_bias * _normal(self._key("popular"), n_items, 1)[:, 0]
        item_hash = splitmix64(self._key("select") + torch.arange(n_items))
        self._selection = rating_bias * (4 * _bits24(item_hash) / _GRID - 1)
        self.user_features = self._observe("seen_u", feature_noise, self._taste, self._mood)
        self.item_features = self._observe("seen_i", feature_noise, self._trait, self._quality)
        self._offset = self._calibrate()

    def rating(self, users: Tensor, items: Tensor) -> Tensor:
        """The rating 1..5 of each pair, whether seen or not: float64 of the shape of users."""
        draw = _bits24(self._pair_hash("rating", users, items))
        score = self._score(users, items)
        return 1.0 + sum(((draw < _reach(score, cut)).double() for cut in _CUTS), torch.tensor(0.0))

    def propensity(self, users: Tensor, items: Tensor) -> Tensor:
        """P(o = 1) given the pair's rating: float64 in (0, 1), of the shape of users."""
        return self._quantised_propensity(users, items) / _GRID

    def label(self, users: Tensor, items: Tensor) -> Tensor:
        """The label 0 or 1 of each pair, float32, of the shape of users."""
        return self.label_rule(self.rating(users, items))

    def preference(self, users: Tensor, items: Tensor) -> Tensor:
        """P(r = 1) before the noise of the rating: float64 in [0, 1], of the shape of users."""
        return _reach(self._score(users, items), _CUTS[self._lowest_positive - 2]) / _GRID

    def observed(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether the pair is in the log: bool, of the shape of users."""
        draw = _bits24(self._pair_hash("exposure", users, items))
        return draw < self._quantised_propensity(users, items)

    def log(self) -> Interactions:
        """The observed pairs: missing not at random."""
        found = []
        for users in self._user_blocks():
            u, i = self._pairs(users)
            keep = self.observed(u, i)
            found.append((u[keep], i[keep]))
        return self._interactions(found, "the synthetic log")

    def uniform_sample(self, per_user: int = 16) -> Interactions:
        """For each user the items of the smallest hashes: uniform, without repetition."""
        if not 1 <= per_user <= self.n_items:
            raise InputError(
                f"dataset.test_per_user must lie in 1..{self.n_items} (n_items), got {per_user}; "
                f"try 16."
            )
        found = []
        for users in self._user_blocks():
            u, i = self._pairs(users)
            draw = self._pair_hash("test", u, i).view(len(users), self.n_items)
            items = draw.topk(per_user, dim=1, largest=False).indices
            found.append((users.repeat_interleave(per_user), items.flatten()))
        return self._interactions(found, "the synthetic test set")

    def _interactions(self, found: list[tuple[Tensor, Tensor]], source: str) -> Interactions:
        users, items = (torch.cat(column) for column in zip(*found, strict=True))
        blocks = zip(torch.split(users, _BLOCK), torch.split(items, _BLOCK), strict=True)
        ratings = torch.cat([self.rating(u, i) for u, i in blocks])
        return Interactions.validated(
            users,
            items,
            ratings,
            self.n_users,
            self.n_items,
            user_features=self.user_features,
            item_features=self.item_features,
            source=source,
            rating_range=(1.0, 5.0),
        )

    def _user_blocks(self) -> Iterable[Tensor]:
        return torch.split(torch.arange(self.n_users), max(1, _BLOCK // self.n_items))

    def _pairs(self, users: Tensor) -> tuple[Tensor, Tensor]:
        u = users.repeat_interleave(self.n_items)
        return u, torch.arange(self.n_items).repeat(len(users))

    def _key(self, purpose: str) -> Tensor:
        """The key of a stream of hashes for one purpose."""
        word = int.from_bytes(purpose.encode()[:7], "big")
        return splitmix64(splitmix64(torch.tensor(self.seed, dtype=torch.int64)) ^ word)

    def _pair_hash(self, purpose: str, users: Tensor, items: Tensor) -> Tensor:
        key = self._key(purpose).to(users.device)
        return splitmix64(splitmix64(key + users) + items)

    def _score(self, users: Tensor, items: Tensor) -> Tensor:
        """Exact in float64: latents lie on a grid of 2^-12, so their products on one of 2^-24."""
        where = users.device
        dim = self._taste.shape[1]
        taste = (self._taste.to(where)[users] * self._trait.to(where)[items]).sum(-1)
        base = self._mood.to(where)[users] + self._quality.to(where)[items]
        return base + taste / math.sqrt(dim)

    def _exposure_logit(self, users: Tensor, items: Tensor) -> Tensor:
        where = users.device
        pull = self._selection.to(where)[items] * (self.rating(users, items) - 3)
        return pull + self._popularity.to(where)[items] + self._activity.to(where)[users]

    def _quantised_propensity(self, users: Tensor, items: Tensor) -> Tensor:
        p = torch.sigmoid(self._exposure_logit(users, items) + self._offset)
        return (p.clamp(_FLOOR, 1 - _FLOOR) * _GRID).round()

    def _calibrate(self) -> float:
        """The exposure offset at which the mean propensity is the density asked for.

        All pairs count in a small world, 2^16 hashed ones in a large one (0.5 % off, at most).
        """
        pairs = torch.arange(min(self.n_users * self.n_items, 1 << 16))
        if self.n_users * self.n_items > len(pairs):
            draw = splitmix64(self._key("sample") + pairs)
            pairs = (draw & (2**63 - 1)) % (self.n_users * self.n_items)
        logit = self._exposure_logit(pairs // self.n_items, pairs % self.n_items)
        low, high = -40.0, 40.0
        for _ in range(50):
            middle = (low + high) / 2
            mean = torch.sigmoid(logit + middle).clamp(_FLOOR, 1 - _FLOOR).mean()
            low, high = (middle, high) if float(mean) < self.density else (low, middle)
        return round(low * _LATENT_GRID) / _LATENT_GRID

    def _observe(self, purpose: str, noise: float, latent: Tensor, bias: Tensor) -> Tensor:
        truth = torch.cat([latent, bias[:, None]], dim=1)
        return (truth + noise * _normal(self._key(purpose), *truth.shape)).float()


def _lowest_positive(rule: LabelRule) -> int:
    positive = [k for k in range(1, 6) if rule(torch.tensor(float(k)))]
    if not 1 <= len(positive) <= 4:
        raise InputError(
            f"dataset.label_threshold must divide the ratings 1..5 into two classes, got the rule "
            f"'{rule}'; try 3."
        )
    return positive[0]


def _bits24(hashes: Tensor) -> Tensor:
    """The upper 24 bits of a hash as float64 in [0, 2^24)."""
    return ((hashes >> 40) & (2**24 - 1)).double()


def _reach(score: Tensor, cut: float) -> Tensor:
    """P(the rating reaches the cut) in units of 2^-24."""
    return (torch.sigmoid((score - cut) / _NOISE) * _GRID).round()


def _grid(values: Tensor) -> Tensor:
    return (values * _LATENT_GRID).round() / _LATENT_GRID


def _normal(key: Tensor, rows: int, columns: int) -> Tensor:
    """[rows, columns] near-normal numbers on the latent grid: sums of four 16-bit uniforms.

    No logarithm or cosine, whose last bits differ between machines; they end at 3.46 deviations.
    """
    hashes = splitmix64(splitmix64(key + torch.arange(rows))[:, None] + torch.arange(columns))
    words = sum(((hashes >> shift) & 0xFFFF for shift in (0, 16, 32, 48)), torch.tensor(0))
    return _grid((words.double() / 2**16 - 2 + 2**-15) * math.sqrt(3))
