r"""Simulated logs of any size and density: their propensities are known, D is never visited.

Ratings follow an ordinal logit of a score of user, item and taste. A user meets items by Poisson
draws from the items' popularity, and rates an item that was met with a probability that grows with
the rating, for some items steeply, for others hardly. A pair is therefore seen with the probability

.. math:: p_{ui} = (1 - e^{-\lambda a_u b_i}) \, e^{-\gamma_i (1 - z_{ui})}

independently of all others, a being activity, b popularity (both with mean 1) and z the rating on
[0, 1]. The log costs as many draws as items are met, not |D|. Users with a single rating keep one
pair, of probability proportional to b times the second factor.

Three numbers are not given but solved for, by bisection on a sample of pairs that covers users and
items evenly: the level of the scores, so that a share of all pairs is positive; gamma, so that a
share of the log is; lambda, so that the log has a density.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.special import pdtr, pdtrik
from torch import Tensor

from upo.core.sampling import Permutation, splitmix64, stream_key, uniform
from upo.data.exposure_plan import WorldPlan
from upo.data.interactions import Interactions, LabelRule
from upo.errors import InputError

_GRID = 2.0**12  # latents and solved numbers are multiples of 1 / _GRID: the same on any machine
_SAMPLE = 2**16  # pairs by which level, selection and density are solved for
_BLOCK = 2**20  # pairs looked at together


class ExposureWorld:
    """The world of a plan; a `Truth` that answers for any pairs.

    Args:
        plan: What it is like.
        seed: Another seed is another world.

    Raises:
        InputError: If no self-selection reaches the density that the plan asks for.
    """

    def __init__(self, plan: WorldPlan, seed: int = 0) -> None:
        self.plan, self.seed = plan, seed
        self.n_users, self.n_items = plan.n_users, plan.n_items
        self.label_rule = LabelRule(plan.threshold)
        self._ratings = torch.tensor(plan.ratings, dtype=torch.float64)
        self._below = sum(rating < plan.threshold for rating in plan.ratings)  # of the scale
        scale = (plan.taste_sd / plan.dim**0.5) ** 0.5
        self._taste = _grid(scale * self._normal("taste", plan.n_users, plan.dim))
        self._trait = _grid(scale * self._normal("trait", plan.n_items, plan.dim))
        self._mood = _grid(plan.user_sd * self._normal("mood", plan.n_users, 1)[:, 0])
        self._quality = _grid(plan.item_sd * self._normal("quality", plan.n_items, 1)[:, 0])
        self._activity = _log_normal(self._normal("activity", plan.n_users, 1), plan.activity_sd)
        self._popularity = _log_normal(self._normal("popular", plan.n_items, 1), plan.popularity_sd)
        off = 2 * self._uniform("slope", torch.arange(plan.n_items)) - 1
        self._slope = _grid(1 + plan.slope_spread * off)  # gamma_i / gamma
        order = torch.argsort(self._uniform("single", torch.arange(plan.n_users)))
        self._single = torch.zeros(plan.n_users, dtype=torch.bool)
        self._single[order[: round(plan.single_share * plan.n_users)]] = True
        self._level = self._gamma = 0.0
        self._lambda = 1.0
        self._solve()
        self._normaliser = self._single_normalisers()

    def rating(self, users: Tensor, items: Tensor) -> Tensor:
        """The rating of each pair, whether seen or not: float64 of the shape of users."""
        return self._ratings.to(users.device)[self._step(users, items)]

    def label(self, users: Tensor, items: Tensor) -> Tensor:
        """The label 0 or 1 of each pair, float32, of the shape of users."""
        return (self._step(users, items) >= self._below).float()

    def preference(self, users: Tensor, items: Tensor) -> Tensor:
        """P(r = 1) before the noise of the rating: float64 in (0, 1), of the shape of users."""
        return torch.sigmoid(self._score(users, items))

    def propensity(self, users: Tensor, items: Tensor) -> Tensor:
        """P(o = 1) given the pair's rating: float64 in (0, 1), of the shape of users."""
        kept = self._kept(users, items)
        popularity = self._popularity.to(users.device)[items]
        met = self._lambda * self._activity.to(users.device)[users] * popularity
        many = -torch.expm1(-met) * kept
        if not self.plan.single_share:
            return many
        one = popularity * kept / self._normaliser.to(users.device)[users]
        return torch.where(self._single.to(users.device)[users], one, many)

    def log(self) -> Interactions:
        """The observed pairs: missing not at random."""
        users, items = self._met()
        keep = self._uniform("kept", users, items) < self._kept(users, items)
        several = keep & ~self._single[users]
        single_users, single_items = self._single_pairs()
        return self._interactions(
            torch.cat([users[several], single_users]),
            torch.cat([items[several], single_items]),
            "the simulated log",
        )

    def uniform_sample(self, rows: int) -> Interactions:
        """Uniformly drawn pairs without repetition; all pairs if there are no more."""
        size = self.n_users * self.n_items
        positions = torch.arange(min(rows, size))
        order = Permutation(size, self.n_items)
        keys = order(positions, stream_key(torch.tensor([self.seed]), "world", "test"))
        users = torch.div(keys, self.n_items, rounding_mode="floor")
        return self._interactions(users, keys - users * self.n_items, "the uniform test set")

    def _interactions(self, users: Tensor, items: Tensor, source: str) -> Interactions:
        blocks = zip(torch.split(users, _BLOCK), torch.split(items, _BLOCK), strict=True)
        return Interactions.validated(
            users,
            items,
            torch.cat([self.rating(u, i) for u, i in blocks]),
            self.n_users,
            self.n_items,
            source=source,
            rating_range=(self.plan.ratings[0], self.plan.ratings[-1]),
        )

    def _met(self) -> tuple[Tensor, Tensor]:
        """Distinct pairs of users and items that met: Poisson draws by popularity."""
        mean = self._lambda * self._activity * self._popularity.sum()  # of draws
        counts = _poisson(self._uniform("count", torch.arange(self.n_users)), mean)
        ends = (self._popularity * _GRID).long().cumsum(0)  # whole numbers, so exact
        keys = []
        for part in torch.split(torch.arange(self.n_users), _users_at_once(counts)):
            users = part.repeat_interleave(counts[part])
            first = counts[part].cumsum(0) - counts[part]
            number = torch.arange(len(users)) - first.repeat_interleave(counts[part])
            draw = (self._uniform("item", users, number) * int(ends[-1])).long()
            items = torch.searchsorted(ends, draw, right=True)
            keys.append(torch.unique(users * self.n_items + items))
        key = torch.cat(keys)
        users = torch.div(key, self.n_items, rounding_mode="floor")
        return users, key - users * self.n_items

    def _single_pairs(self) -> tuple[Tensor, Tensor]:
        """Users with one rating, and its item: the place of a draw in the sum of their weights."""
        users = torch.nonzero(self._single)[:, 0]
        items = [users.new_zeros(0)]
        for part in torch.split(users, max(1, _BLOCK // self.n_items)):
            ends = self._weights(part).cumsum(1)
            draw = self._uniform("one", part)[:, None] * ends[:, -1:]
            found = torch.searchsorted(ends, draw, right=True)[:, 0]
            items.append(found.clamp(max=self.n_items - 1))
        return users, torch.cat(items)

    def _single_normalisers(self) -> Tensor:  # [n_users], read only where single
        total = torch.ones(self.n_users, dtype=torch.float64)
        for part in torch.split(torch.nonzero(self._single)[:, 0], max(1, _BLOCK // self.n_items)):
            total[part] = self._weights(part).sum(1)
        return total

    def _weights(self, users: Tensor) -> Tensor:  # [U] -> [U, n_items]
        grid = (
            users[:, None].expand(-1, self.n_items),
            torch.arange(self.n_items).expand(len(users), -1),
        )
        return self._popularity * self._kept(*grid)

    def _score(self, users: Tensor, items: Tensor) -> Tensor:
        where = users.device
        taste = (self._taste.to(where)[users] * self._trait.to(where)[items]).sum(-1)
        return self._level + self._mood.to(where)[users] + self._quality.to(where)[items] + taste

    def _step(self, users: Tensor, items: Tensor) -> Tensor:
        """Place of the rating in the scale: the score, with logistic noise, against even cuts."""
        draw = self._uniform("rating", users, items)
        noisy = self._score(users, items) - torch.logit(draw, eps=1e-12)
        spacing = 4.0 / (len(self.plan.ratings) - 1)
        step = torch.floor(noisy / spacing) + self._below
        return step.clamp(0, len(self.plan.ratings) - 1).long()

    def _kept(self, users: Tensor, items: Tensor) -> Tensor:
        """P(a pair that met is rated), at most 1."""
        return self._kept_at(self._gamma, self.rating(users, items), items)

    def _kept_at(self, gamma: float, ratings: Tensor, items: Tensor) -> Tensor:
        low, high = self.plan.ratings[0], self.plan.ratings[-1]
        missing = (high - ratings) / (high - low)
        return torch.exp(-gamma * self._slope.to(items.device)[items] * missing)

    def _solve(self) -> None:
        """Level, gamma and lambda, on pairs that cover users and items evenly."""
        plan, number = self.plan, torch.arange(_SAMPLE)
        items = number % self.n_items
        users = _shuffled(self._key("cover"), number) % self.n_users
        self._level = _root(
            lambda x: float(torch.sigmoid(self._score(users, items) + x).mean()) - plan.positive_all
        )
        ratings, labels = self.rating(users, items), self.label(users, items).double()
        met = self._activity[users] * self._popularity[items]

        def seen(gamma: float) -> Tensor:
            kept = self._kept_at(gamma, ratings, items)
            self._lambda = 2 ** _root(
                lambda x: float((-torch.expm1(-(2.0**x) * met) * kept).mean()) - plan.density,
                20.0,
            )
            return -torch.expm1(-self._lambda * met) * kept

        def gap(gamma: float) -> float:
            p = seen(gamma)
            return float((p * labels).sum() / p.sum()) - plan.positive_log

        self._gamma = max(0.0, _root(gap, 16.0))
        reached = float(seen(self._gamma).mean())
        if reached < 0.9 * plan.density:
            raise InputError(
                f"With {plan.positive_log:.0%} positives in the log and {plan.positive_all:.0%} of "
                f"all pairs, at most {reached:.2%} of the pairs are rated, not "
                f"{plan.density:.2%}; ask for less of one of them."
            )

    def _key(self, purpose: str) -> Tensor:
        return stream_key(torch.tensor([self.seed]), "world", purpose)[0]

    def _uniform(self, purpose: str, *index: Tensor) -> Tensor:
        """float64 in [0, 1) of the shape of the index tensors."""
        key = self._key(purpose).to(index[0].device)
        for part in index:
            key = splitmix64(key + part)
        return uniform(key)

    def _normal(self, purpose: str, rows: int, columns: int) -> Tensor:
        draw = self._uniform(
            purpose, torch.arange(rows)[:, None], torch.arange(columns).expand(rows, -1)
        )
        return _grid(torch.special.ndtri(draw.clamp(2.0**-40, 1 - 2.0**-40)))


def _shuffled(key: Tensor, number: Tensor) -> Tensor:
    """The numbers ``0 .. n - 1`` in another order."""
    return torch.argsort(splitmix64(key + number))


def _log_normal(normal: Tensor, sd: float) -> Tensor:  # [n, 1] -> [n]
    """Positive numbers of mean 1."""
    values = torch.exp(sd * normal[:, 0])
    return _grid(values / values.mean()).clamp(min=1 / _GRID)


def _grid(values: Tensor) -> Tensor:
    return (values * _GRID).round() / _GRID


def _root(function: Callable[[float], float], reach: float = 20.0) -> float:
    """Where an increasing function changes sign within ``-reach .. reach``, or the nearer end."""
    low, high = -reach, reach
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return round(high * _GRID) / _GRID


def _poisson(draw: Tensor, mean: Tensor) -> Tensor:
    """Poisson numbers by inversion."""
    below = torch.from_numpy(pdtrik(draw.numpy(), mean.numpy()))
    count = torch.nan_to_num(below, nan=0.0).ceil().clamp(min=0)
    less = torch.from_numpy(pdtr((count - 1).clamp(min=0).numpy(), mean.numpy()))
    return torch.where((count > 0) & (less >= draw), count - 1, count).long()


def _users_at_once(counts: Tensor) -> int:
    return max(1, _BLOCK // max(1, int(counts.max())))
