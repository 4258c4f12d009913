"""Semi-synthetic studies: the completed matrix of a real log, with propensities that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from upo.core.sampling import Permutation, stream_key
from upo.data.datamodule import RatingDataModule
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.data.semisynthetic_cache import completed
from upo.data.semisynthetic_completion import Completion, LogRows
from upo.data.semisynthetic_world import (
    CUTS,
    CUTS_AS_PUBLISHED,
    SemiSyntheticWorld,
    classes_by_share,
)
from upo.errors import InputError

_RULE = LabelRule(1.0)  # the ratings of the log are the labels, 0 or 1
_PROTOCOLS = ("corrected", "as_published")


@runtime_checkable
class Ordered(Protocol):
    """A datamodule that knows the order of its log."""

    def log_rows(self) -> LogRows:
        """The rows of the log in the order of the file."""


def log_rows(base: RatingDataModule) -> LogRows:
    """Rows in the order of the file where the base knows it, else shuffled by a fixed hash."""
    if isinstance(base, Ordered):
        return base.log_rows()
    train = base.data.train
    positions = torch.arange(len(train))
    order = Permutation(len(train))(positions, stream_key(torch.tensor(0), "log_rows"))
    return LogRows(train.users[order], train.items[order], train.ratings[order])


def make_semisynthetic(
    world: SemiSyntheticWorld,
    name: str,
    base: RatingData | None = None,
    *,
    features: bool = True,
    all_cells: bool = False,
) -> RatingData:
    """The log on the train cells, the held-out sample, and the world itself as the truth.

    Args:
        world: The world.
        name: Of the dataset in tables and results.
        base: Whose ids are kept, if given.
        features: Keep the features of its users and items, too.
        all_cells: D is every cell; those held out are in it and count as unobserved.
    """
    kept = base.train if base is not None and features else None
    train, test = (
        Interactions.validated(
            *rows,
            world.n_users,
            world.n_items,
            user_features=None if kept is None else kept.user_features,
            item_features=None if kept is None else kept.item_features,
            source=f"{name}, {part}",
        )
        for part, rows in (("train", world.log()), ("test", world.uniform_sample()))
    )
    return RatingData(
        name,
        train,
        test,
        _RULE,
        truth=world,
        user_ids=None if base is None else base.user_ids,
        item_ids=None if base is None else base.item_ids,
        cells=None if all_cells else world.cells,
    )


class SemiSyntheticDataModule(RatingDataModule):
    """A semi-synthetic study on any base; the keys are those of `conf/dataset/semisynthetic.yaml`.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        base: RatingDataModule,
        *,
        name: str = "semisynthetic",
        p: float = 0.5,
        world_seed: int = 0,
        train_share: float = 0.8,
        test_share: float = 0.2,
        protocol: str = "corrected",
        completion: Completion | None = None,
        features: bool = True,
        all_cells: bool = False,
        cache_dir: str = "cache",
        k: int = 5,
    ) -> None:
        super().__init__(name, _RULE.threshold, _RULE.strict, k=k)
        if protocol not in _PROTOCOLS:
            raise InputError(
                f"dataset.protocol must be one of {', '.join(_PROTOCOLS)}, got {protocol!r}."
            )
        if not 0 < p < 1:  # before a matrix is completed for nothing
            raise InputError(f"dataset.p must lie in (0, 1), got {p}; try 0.5.")
        self.base = base
        self.completion = completion or Completion()
        self._name, self._p, self._seed = name, p, world_seed
        self._shares = (train_share, test_share)
        self._as_published = protocol == "as_published"
        self._features, self._all_cells = features, all_cells
        self._cache_dir = Path(cache_dir)

    def read(self) -> RatingData:
        base = self.base.data
        n_users, n_items = base.train.n_users, base.train.n_items
        result = completed(
            log_rows(self.base),
            n_users,
            n_items,
            self.completion,
            self._cache_dir,
            f"completed-{base.name}",
        )
        cuts = CUTS_AS_PUBLISHED if self._as_published else CUTS
        world = SemiSyntheticWorld(
            classes_by_share(result.matrix, cuts),
            n_users,
            n_items,
            p=self._p,
            seed=self._seed,
            train_share=self._shares[0],
            test_share=self._shares[1],
            as_published=self._as_published,
        )
        return make_semisynthetic(
            world, self._name, base, features=self._features, all_cells=self._all_cells
        )
