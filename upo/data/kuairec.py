"""KuaiRec: watch ratios of short videos, with a nearly fully observed matrix to test on.

Source: Gao et al., "KuaiRec: A Fully-Observed Dataset and Insights for Evaluating Recommender
Systems", CIKM 2022. Two forms are read:

- the derived files of the debiasing literature, `user.txt` (biased) and `random.txt` (unbiased):
  with the genuine files 1,411 users x 3,327 videos once both are indexed together;
- the official logs. Their authors removed the pairs of the small matrix from the big one, to train
  on the big and test on the small, so the big matrix restricted to the users and videos of the
  small one is next to empty. Train is therefore the whole big matrix (less any pair of the small
  one), and test is `test_per_user` uniformly drawn videos for each user of the small matrix. The
  derived files cannot be rebuilt from the official ones: how they were drawn was never published.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from upo.core.sampling import splitmix64
from upo.data.datamodule import RatingDataModule
from upo.data.download import KUAIREC, obtain
from upo.data.duplicates import resolve_duplicates
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.data.text_files import read_columns, require
from upo.errors import InputError

_DERIVED = ("user.txt", "random.txt")
_OFFICIAL = ("big_matrix.csv", "small_matrix.csv")
_HOW = (
    f"put user.txt and random.txt there, or the official logs from {KUAIREC.page} (also with "
    f"dataset.download=true), or set dataset.data_dir to the folder that holds them"
)
Rows = tuple[Tensor, Tensor, Tensor]


def read_kuairec(
    folder: str | Path,
    label_rule: LabelRule | None = None,
    *,
    duplicates: str = "mean",
    test_per_user: int | None = 83,
) -> RatingData:
    """Read KuaiRec and index its sparse ids over train and test together.

    Args:
        folder: Where the files lie; `user.txt` and `random.txt` come before the official logs.
        label_rule: Which watch ratios are positive; those above 2 if not given.
        duplicates: What becomes of a video that a user watched repeatedly (the official big matrix
            has up to 2,224 rows for one pair, some of them exact copies): `mean`, `first` or
            `last` of its watch ratios in file order, or `error`.
        test_per_user: Test rows drawn for each user of the official small matrix; None for all.

    Raises:
        InputError: If files are missing or damaged, or a watch ratio is negative.
    """
    folder = Path(folder)
    official = not any((folder / name).is_file() for name in _DERIVED)
    names = _OFFICIAL if official else _DERIVED
    require(folder, names, _HOW)
    train, test = (_read(folder / name, official) for name in names)
    n_train = len(train[0])
    user_ids, users = torch.unique(torch.cat([train[0], test[0]]), return_inverse=True)
    item_ids, items = torch.unique(torch.cat([train[1], test[1]]), return_inverse=True)
    size = (len(user_ids), len(item_ids))
    train, test = (
        resolve_duplicates(*rows, size[1], duplicates)
        for rows in (
            (users[:n_train], items[:n_train], train[2]),
            (users[n_train:], items[n_train:], test[2]),
        )
    )
    if official:
        train = _without(train, test, size[1])
        if test_per_user is not None:
            test = _draw(test, item_ids[test[1]], user_ids[test[0]], test_per_user)
    ids = (user_ids.numpy(), item_ids.numpy())
    checked = [
        Interactions.validated(
            *rows, *size, source=str(folder / name), rating_range=(0.0, float("inf")), ids=ids
        )
        for name, rows in zip(names, (train, test), strict=True)
    ]
    return RatingData(
        name="kuairec",
        train=checked[0],
        test=checked[1],
        label_rule=label_rule or LabelRule(2.0, strict=True),
        user_ids=ids[0],
        item_ids=ids[1],
    )


def _read(path: Path, official: bool) -> Rows:
    names = ("user_id", "video_id", "watch_ratio") if official else ("user", "item", "watch_ratio")
    rows = read_columns(path, dict(zip(names, (int, int, float), strict=True)), header=official)
    users, items, ratios = rows.values()
    wrong = torch.nonzero(ratios < 0)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}, line {row + 1 + official}: the watch_ratio {float(ratios[row]):g} must be at "
            f"least 0; restore the file from its source."
        )
    return users, items, ratios


def _without(rows: Rows, others: Rows, n_items: int) -> Rows:
    keep = ~torch.isin(rows[0] * n_items + rows[1], others[0] * n_items + others[1])
    return rows[0][keep], rows[1][keep], rows[2][keep]


def _draw(rows: Rows, item_ids: Tensor, user_ids: Tensor, count: int) -> Rows:
    """For each user the `count` rows of the smallest hash of (user id, video id)."""
    if count < 1:
        raise InputError(f"dataset.test_per_user must be at least 1 or null, got {count}; try 83.")
    draw = splitmix64(splitmix64(user_ids) + item_ids)
    order = torch.argsort(draw)
    order = order[torch.argsort(rows[0][order], stable=True)]  # by user, then by hash
    counts = torch.bincount(rows[0])
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    keep = order[torch.arange(len(order)) - starts < count]
    return rows[0][keep], rows[1][keep], rows[2][keep]


class KuaiRecDataModule(RatingDataModule):
    """KuaiRec as a datamodule; the keys are those of `conf/dataset/kuairec.yaml`."""

    def __init__(
        self,
        data_dir: str,
        *,
        name: str = "kuairec",
        label_threshold: float = 2.0,
        label_strict: bool = True,
        drop_overlap: bool = False,
        k: int = 20,
        download: bool = False,
        duplicates: str = "mean",
        test_per_user: int | None = 83,
    ) -> None:
        super().__init__(name, label_threshold, label_strict, drop_overlap, k)
        self._folder = Path(data_dir)
        self._rule = LabelRule(label_threshold, label_strict)
        self._download = download
        self._duplicates = duplicates
        self._test_per_user = test_per_user

    def read(self) -> RatingData:
        if self._download and not (self._folder / "user.txt").is_file():
            obtain(KUAIREC, self._folder)
        return read_kuairec(
            self._folder,
            self._rule,
            duplicates=self._duplicates,
            test_per_user=self._test_per_user,
        )
