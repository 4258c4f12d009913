"""Coat Shopping: 290 users, 300 coats, a self-selected log and a uniform sample for each user.

Source: Schnabel et al., "Recommendations as Treatments", ICML 2016.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from upo.data.datamodule import RatingDataModule
from upo.data.download import COAT, obtain
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.data.text_files import read_columns, read_matrix, require
from upo.errors import InputError

Triple = tuple[Tensor, Tensor, Tensor]
_SCALE = (1.0, 5.0)
_HOW = (
    f"get Coat from {COAT.page} or with dataset.download=true, or set dataset.data_dir to the "
    f"folder that holds it"
)


def read_coat(folder: str | Path, label_rule: LabelRule | None = None) -> RatingData:
    """Read Coat from its matrices, or from `user.txt` and `random.txt` in 0-based triples.

    Features (`user_item_features/*.ascii`) and the authors' `propensities.ascii` are read where
    they are present. Lines may end in LF or CRLF.

    Args:
        folder: Where the files lie, under their upstream names.
        label_rule: Which ratings (1..5) are positive; at least 3 if not given.

    Raises:
        InputError: If files are missing, damaged, or disagree.
    """
    folder = Path(folder)
    if not (folder / "train.ascii").is_file() and (folder / "user.txt").is_file():
        train, test = _read_long(folder)
    else:
        train, test = _read_matrices(folder)
    propensities = folder / "propensities.ascii"
    return RatingData(
        name="coat",
        train=train,
        test=test,
        label_rule=label_rule or LabelRule(3.0),
        propensities=read_matrix(propensities) if propensities.is_file() else None,
    )


def _read_matrices(folder: Path) -> tuple[Interactions, Interactions]:
    names = ("train.ascii", "test.ascii")
    require(folder, names, _HOW)
    tables = [read_matrix(folder / name) for name in names]
    sizes = [tuple(table.shape) for table in tables]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{folder}: train.ascii has {sizes[0][0]} lines x {sizes[0][1]} columns but test.ascii "
            f"{sizes[1][0]} x {sizes[1][1]}; one of them is cut off: {_HOW}."
        )
    triples = [_triples(table) for table in tables]
    for name, (users, items, ratings) in zip(names, triples, strict=True):
        wrong = torch.nonzero(~((ratings >= _SCALE[0]) & (ratings <= _SCALE[1])))
        if len(wrong):
            k = int(wrong[0])
            raise InputError(
                f"{folder / name}, line {int(users[k]) + 1}, column {int(items[k]) + 1}: the "
                f"rating {float(ratings[k]):g} must be 1..5, or 0 for none; {_HOW}."
            )
    return _interactions(folder, names, triples, (sizes[0][0], sizes[0][1]))


def _triples(table: Tensor) -> Triple:
    users, items = torch.nonzero(table, as_tuple=True)
    return users, items, table[users, items]


def _read_long(folder: Path) -> tuple[Interactions, Interactions]:
    names = ("user.txt", "random.txt")
    require(folder, names, _HOW)
    columns: dict[str, type[int] | type[float]] = {"user": int, "item": int, "rating": float}
    files = [read_columns(folder / name, columns) for name in names]
    triples = [(rows["user"], rows["item"], rows["rating"]) for rows in files]
    size = [1 + max(int(rows[axis].max()) for rows in triples) for axis in (0, 1)]
    return _interactions(folder, names, triples, (size[0], size[1]))


def _interactions(
    folder: Path,
    names: tuple[str, str],
    triples: list[Triple],
    size: tuple[int, int],
) -> tuple[Interactions, Interactions]:
    features = [_features(folder, side) for side in ("user", "item")]
    train, test = (
        Interactions.validated(
            rows[0],
            rows[1],
            rows[2],
            size[0],
            size[1],
            user_features=features[0],
            item_features=features[1],
            source=str(folder / name),
            rating_range=_SCALE,
        )
        for name, rows in zip(names, triples, strict=True)
    )
    return train, test


def _features(folder: Path, side: str) -> Tensor | None:
    path = folder / "user_item_features" / f"{side}_features.ascii"
    return read_matrix(path) if path.is_file() else None


class CoatDataModule(RatingDataModule):
    """Coat as a datamodule; the keys are those of `conf/dataset/coat.yaml`."""

    def __init__(
        self,
        data_dir: str,
        *,
        name: str = "coat",
        label_threshold: float = 3.0,
        label_strict: bool = False,
        drop_overlap: bool = False,
        k: int = 5,
        download: bool = False,
    ) -> None:
        super().__init__(name, label_threshold, label_strict, drop_overlap, k)
        self._folder = Path(data_dir)
        self._rule = LabelRule(label_threshold, label_strict)
        self._download = download

    def read(self) -> RatingData:
        if self._download:
            obtain(COAT, self._folder)
        return read_coat(self._folder, self._rule)
