"""A world made of a completed rating matrix: its true propensities and labels are known.

The likelihood of a positive rating and the propensity follow from the rank of a pair's completed
rating. Which pairs are split off, observed and rated positively are pure functions of
(seed, user, item). Source: the semi-synthetic protocol of UPO (AAAI 2026).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upo.core.sampling import Permutation, splitmix64, stream_key, uniform
from upo.errors import InputError

CODES = (0.1, 0.3, 0.5, 0.7, 0.9)  # P(r = 1) of the five classes of pairs, from low to high rating
POWERS = (4, 4, 3, 2, 1)  # of p in the propensity, class by class
CUTS = (0.53, 0.77, 0.91, 0.97)  # cumulative shares of the classes, as among uniform ratings
CUTS_AS_PUBLISHED = (0.53, 0.77, 0.91, 0.98)
_BLOCK = 1 << 18  # cells looked at together


def classes_by_share(matrix: Tensor, cuts: tuple[float, ...] = CUTS) -> Tensor:
    """Class 0..4 of every pair by the rank of its completed rating, ties by position.

    Args:
        matrix: ``[n_users, n_items]``.
        cuts: Ascending cumulative shares at which the classes end.

    Returns:
        ``[n_users * n_items]`` int8, by key.

    Example:
        >>> classes_by_share(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), (0.25, 0.5, 0.75, 1.0))
        tensor([3, 0, 2, 1], dtype=torch.int8)
    """
    order = matrix.flatten().argsort(stable=True)
    ends = torch.tensor([round(cut * len(order)) for cut in cuts])
    classes = torch.empty(len(order), dtype=torch.int8)
    classes[order] = torch.bucketize(torch.arange(len(order)), ends, right=True).to(torch.int8)
    return classes


def class_propensities(p: float, *, as_published: bool = False) -> tuple[float, ...]:
    """Propensity of each class: p to the power of 4, 4, 3, 2, 1.

    Args:
        p: In (0, 1).
        as_published: Replace the codes one after another in one table, from 0.9 to 0.1, as the
            published code does: a propensity that equals a later code is then replaced again.

    Example:
        >>> class_propensities(0.5)
        (0.0625, 0.0625, 0.125, 0.25, 0.5)
        >>> class_propensities(0.5, as_published=True)
        (0.0625, 0.0625, 0.125, 0.25, 0.125)
    """
    if not as_published:
        return tuple(p**power for power in POWERS)
    table = list(CODES)
    for code, power in reversed(list(zip(CODES, POWERS, strict=True))):
        table = [p**power if value == code else value for value in table]
    return tuple(table)


@dataclass(frozen=True)
class TrainCells:
    """The cells of users x items that a study trains on: those that stand for D.

    Their number is rounded to a multiple of the number of items, for which a permutation needs no
    cycle walking.
    """

    n_users: int
    n_items: int
    share: float  # of all cells, in (0, 1)
    seed: int

    def __len__(self) -> int:
        return self.n_items * min(self.n_users - 1, max(1, round(self.share * self.n_users)))

    def __call__(self, positions: Tensor) -> Tensor:
        """Keys ``u * n_items + i`` of cells by number; from ``len(self)`` on those held out."""
        domain = Permutation(self.n_users * self.n_items, self.n_items)
        return domain(positions, self._key(positions))

    def contain(self, keys: Tensor) -> Tensor:
        """Whether keys are train cells: bool of the shape of the keys."""
        return self.number(keys) < len(self)

    def number(self, keys: Tensor) -> Tensor:
        """Numbers of cells by key; from ``len(self)`` on those held out."""
        domain = Permutation(self.n_users * self.n_items, self.n_items)
        return domain.inverse(keys, self._key(keys))

    def _key(self, like: Tensor) -> Tensor:
        return stream_key(torch.tensor(self.seed, device=like.device), "train_cells")


class SemiSyntheticWorld:
    """Propensities and labels of all pairs of a completed matrix (it is a `Truth`).

    Args:
        classes: ``[n_users * n_items]`` int8, class 0..4 of each pair by key.
        n_users: Rows of the matrix.
        n_items: Columns of the matrix.
        p: Propensity of the highest class, in (0, 1); a larger one shows more and selects less.
        seed: Of the split, the observations and the labels.
        train_share: Share of the cells that trains, in (0, 1).
        test_share: Share of the other cells that tests, in (0, 1].
        as_published: Propensities with the fault of the published code.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        classes: Tensor,
        n_users: int,
        n_items: int,
        *,
        p: float,
        seed: int = 0,
        train_share: float = 0.8,
        test_share: float = 0.2,
        as_published: bool = False,
    ) -> None:
        if not 0 < p < 1:
            raise InputError(f"dataset.p must lie in (0, 1), got {p}; try 0.5.")
        if not 0 < train_share < 1 or not 0 < test_share <= 1:
            raise InputError(
                f"dataset.train_share must lie in (0, 1) and dataset.test_share in (0, 1], got "
                f"{train_share} and {test_share}; try 0.8 and 0.2."
            )
        if n_users < 2 or n_items < 2:
            raise InputError(
                f"A semi-synthetic dataset needs at least 2 users and 2 items, its base has "
                f"{n_users} and {n_items}; give more ratings."
            )
        self.n_users, self.n_items, self.seed = n_users, n_items, seed
        self.cells = TrainCells(n_users, n_items, train_share, seed)
        self.n_test = max(1, round((1 - train_share) * test_share * n_users * n_items))
        self.n_test = min(self.n_test, n_users * n_items - len(self.cells))
        self._classes = classes
        self._propensities = class_propensities(p, as_published=as_published)

    def propensity(self, users: Tensor, items: Tensor) -> Tensor:
        """P(o = 1): float64 in (0, 1), of the shape of users."""
        return self._by_class(self._propensities, users, items)

    def preference(self, users: Tensor, items: Tensor) -> Tensor:
        """P(r = 1), one of .1, .3, .5, .7, .9: float64 of the shape of users."""
        return self._by_class(CODES, users, items)

    def label(self, users: Tensor, items: Tensor) -> Tensor:
        """The label 0 or 1 of each pair, float32, of the shape of users."""
        return (self._draw("label", users, items) < self.preference(users, items)).float()

    def observed(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether the pair is seen, if it is a train cell: bool, of the shape of users."""
        return self._draw("observed", users, items) < self.propensity(users, items)

    def log(self) -> tuple[Tensor, Tensor, Tensor]:
        """Users, items and labels of the observed train cells: missing not at random."""
        found = []
        for lo in range(0, len(self.cells), _BLOCK):
            users, items = self._at(lo, min(lo + _BLOCK, len(self.cells)))
            seen = self.observed(users, items)
            found.append((users[seen], items[seen]))
        users, items = (torch.cat(column) for column in zip(*found, strict=True))
        return users, items, self.label(users, items)

    def uniform_sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Users, items and labels of a uniform sample of the cells held out."""
        users, items = self._at(len(self.cells), len(self.cells) + self.n_test)
        return users, items, self.label(users, items)

    def _at(self, lo: int, hi: int) -> tuple[Tensor, Tensor]:
        keys = self.cells(torch.arange(lo, hi))
        users = torch.div(keys, self.n_items, rounding_mode="floor")
        return users, keys - users * self.n_items

    def _by_class(self, values: tuple[float, ...], users: Tensor, items: Tensor) -> Tensor:
        if self._classes.device != users.device:
            self._classes = self._classes.to(users.device)
        table = torch.tensor(values, dtype=torch.float64, device=users.device)
        return table[self._classes[users * self.n_items + items].long()]

    def _draw(self, purpose: str, users: Tensor, items: Tensor) -> Tensor:
        """A uniform number in [0, 1) for each pair."""
        key = stream_key(torch.tensor(self.seed, device=users.device), purpose)
        return uniform(splitmix64(splitmix64(key + users) + items))
