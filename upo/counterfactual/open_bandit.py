"""The CSV files of the Open Bandit Dataset as a log that ``upo.evaluate`` takes.

A row of such a file is a round: a visitor (``user_feature_*``) at a position of the page was shown
``item_id``, drawn with ``propensity_score`` from all items, and clicked or did not. So the pairs of
D are rounds x items, one of each round was observed, and a ranking metric at k = 1 is what a policy
that shows its best item would earn (IPS and SNIPS of off-policy evaluation). Items of one round are
drawn together, not apart: for k = 1 that changes nothing, for the losses it makes intervals wider
than they need be.

Source: Saito, Aihara, Matsutani, Narita, "Open Bandit Dataset and Pipeline", NeurIPS Datasets and
Benchmarks 2021.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from upo.counterfactual.checks import check_all, numbers
from upo.errors import InputError
from upo.tables.files import read_every_column

NEEDED = ("item_id", "position", "click", "propensity_score")
AFFINITY = re.compile(r"user-item_affinity_(\d+)")


@dataclass(frozen=True, eq=False)
class OpenBandit:
    """The rounds of a file.

    Attributes:
        log: A row for each round: ``user`` (its number in the file, from 0), ``item``, ``rating``
            (1 where it was clicked), ``propensity``, ``position``, perhaps ``timestamp``.
        user_features: ``user`` and its ``user_feature_*``.
        affinity: ``[rounds, items]`` of the visitor to each item; no column if the file has none.
    """

    log: pd.DataFrame
    user_features: pd.DataFrame
    affinity: np.ndarray[tuple[int, int], np.dtype[np.float64]]

    @property
    def n_items(self) -> int:
        """Items that could be shown."""
        shown = int(self.log["item"].max()) + 1
        return max(shown, self.affinity.shape[1])

    def candidates(self) -> pd.DataFrame:
        """Every round with every item, and the affinity of its visitor, where there is one."""
        users = np.repeat(self.log["user"].to_numpy(), self.n_items)
        items = np.tile(np.arange(self.n_items), len(self.log))
        frame = pd.DataFrame({"user": users, "item": items})
        return frame.assign(affinity=self.affinity.ravel()) if self.affinity.size else frame


def read_open_bandit(path: str | Path, *, position: int | None = None) -> OpenBandit:
    """Read a file such as ``random/all/all.csv``.

    Args:
        path: CSV, also ``.gz``, with the columns item_id, position, click and propensity_score,
            and perhaps timestamp, ``user_feature_*`` and ``user-item_affinity_*``.
        position: Keep the rounds of one position of the page; None for all.

    Raises:
        InputError: If the file is missing or damaged, lacks a column, or holds what cannot be.

    Example:
        ``upo.evaluate(rounds.log, scores, metrics="precision", k=1, label_threshold=1)``
    """
    table = read_every_column(Path(path), "path", ["timestamp"])
    absent = [name for name in NEEDED if name not in table.column_names]
    if absent:
        raise InputError(
            f"{path} has no column {' or '.join(absent)}; an Open Bandit file has "
            f"{', '.join(NEEDED)}."
        )
    if not table.num_rows:
        raise InputError(f"{path} has no rows.")
    item, place, click, p = (numbers(table, name, str(path)) for name in NEEDED)
    for name, values, right, allowed in (
        ("item_id", item, (item >= 0) & (item == item.round()), "whole numbers of at least 0"),
        ("position", place, place == place.round(), "whole numbers"),
        ("click", click, (click == 0) | (click == 1), "0 or 1"),
        ("propensity_score", p, (p > 0) & (p <= 1), "probabilities in (0, 1]"),
    ):
        check_all(values, right, f"{path}: the column {name}", allowed)
    keep = np.ones(len(p), dtype=bool) if position is None else place == position
    if not keep.any():
        raise InputError(
            f"{path} has no round at position {position}, only at "
            f"{', '.join(f'{x:g}' for x in np.unique(place))}."
        )
    user = np.flatnonzero(keep)
    log = pd.DataFrame(
        {
            "user": user,
            "item": item[keep].astype(np.int64),
            "rating": click[keep].astype(np.int64),
            "propensity": p[keep],
            "position": place[keep].astype(np.int64),
        }
    )
    if "timestamp" in table.column_names:
        log["timestamp"] = table["timestamp"].to_pandas().to_numpy()[keep]
    features = [name for name in table.column_names if name.startswith("user_feature_")]
    shown = table.select(features).to_pandas()[keep].reset_index(drop=True)
    return OpenBandit(log, pd.concat([log[["user"]], shown], axis=1), _affinity(table, keep, path))


def _affinity(table: pa.Table, keep: np.ndarray, path: str | Path) -> np.ndarray:
    found = {int(m[1]): m[0] for name in table.column_names if (m := AFFINITY.fullmatch(name))}
    if sorted(found) != list(range(len(found))):
        raise InputError(
            f"{path} has user-item_affinity columns of items {sorted(found)}; one for each item "
            "from 0 is needed."
        )
    columns = [numbers(table, found[n], str(path))[keep] for n in range(len(found))]
    if columns and len(columns) <= float(np.max(numbers(table, "item_id", str(path)))):
        raise InputError(
            f"{path} has {len(columns)} user-item_affinity columns and items beyond; one for each "
            "item is needed."
        )
    return np.stack(columns, axis=1) if columns else np.empty((int(keep.sum()), 0))
