"""A later log beside the one that a model was fitted on: its ids, its rows, its features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from omegaconf import DictConfig
from torch import Tensor

from upo.data.duplicates import resolve_duplicates
from upo.data.interactions import Interactions, LabelRule
from upo.errors import InputError
from upo.fitted.settings import composed_run
from upo.models.estimator import Estimator
from upo.pairs import PairSpace
from upo.pairs.target import Positive
from upo.runs.tuned import NOT_TUNED
from upo.tables.columns import collect
from upo.tables.frames import to_arrow
from upo.tables.ids import Places, check_columns
from upo.tables.numbering import BLOCK, Ids, Numbered, shown


@dataclass(frozen=True)
class Side:
    """The users, or the items, of both logs.

    Attributes:
        ids: By index: those of D as they were, those that have come into it, and known ones
            without a rating.
        size: How many of them are of D.
        features: A row for each id, or None.
        index: ``[N]`` indices of the rows of the later log.
    """

    ids: Ids
    size: int
    features: Tensor | None
    index: Tensor


def settings_of(params: Mapping[str, Any] | None, target: str) -> DictConfig:
    """The configuration of the fit, composed again of its settings.

    A file may hold settings that name classes; none of these is followed.

    Args:
        params: What the model says of its fit.
        target: What it predicts.

    Raises:
        InputError: If the model does not come from ``upo.fit``, or a setting names code.
    """
    if params is None or "estimator" not in params or target == "observed":
        raise InputError(
            "update goes on with models of upo.fit that predict positive ratings or ratings; train "
            "this one again on both logs."
        )
    overrides = dict(params.get("overrides") or {})
    odd = next((k for k in overrides if any(p.startswith("_") for p in str(k).split("."))), None)
    if odd is not None:
        raise InputError(f"The fit had the setting {odd}, which names code; fit again instead.")
    settings = {**overrides, "target": target, "seeds": params["seeds"]}
    return composed_run(params["estimator"], settings, [NOT_TUNED])


def joined(ids: Ids, size: int, features: Tensor | None, rows: Numbered, what: str) -> Side:
    """Ids of a later log beside those of a model.

    Args:
        ids: Of the model, those of D first.
        size: How many are of D.
        features: A row for each.
        rows: Ids of the rows of the later log.
        what: ``user`` or ``item``.

    Raises:
        InputError: If new ids are of another type, or lack features.
    """
    values = pa.chunked_array([pa.array(rows.values)])
    place = Places(ids).find(values).numpy() if len(rows.values) else np.zeros(0, np.int64)
    new = np.sort(rows.values[place < 0])
    if len(new) and new.dtype.kind != ids.dtype.kind:
        kinds = {"i": "whole numbers", "O": "text"}
        raise InputError(
            f"The new {what} {shown(new[0])} is {kinds.get(new.dtype.kind, 'of another type')}, "
            f"and the {what}s of the model are {kinds.get(ids.dtype.kind, 'others')}; give both "
            "one type."
        )
    if len(new) and features is not None:
        raise InputError(
            f"The new {what} {shown(new[0])} has no features ({len(new)} have none), and this "
            f"model reads them; fit again with a row for every {what}."
        )
    rated = np.unique(place[place >= size])  # known before, without a rating
    order = np.concatenate([np.arange(size), rated, np.setdiff1d(np.arange(size, len(ids)), rated)])
    d = size + len(rated)
    index_of = np.empty(len(ids), dtype=np.int64)
    index_of[order] = np.arange(len(ids))
    index_of[order[d:]] += len(new)
    found = np.where(place < 0, 0, index_of[np.maximum(place, 0)])
    found[place < 0] = d + np.searchsorted(new, rows.values[place < 0])
    return Side(
        ids=np.concatenate([ids[order[:d]], new, ids[order[d:]]]).astype(ids.dtype),
        size=d + len(new),
        features=None if features is None else features[torch.from_numpy(order)],
        index=torch.from_numpy(found[rows.numbers]),
    )


def later_space(
    log: Any,
    estimator: Estimator,
    ids: tuple[Ids, Ids],
    params: Mapping[str, Any],
    config: DictConfig,
) -> tuple[PairSpace, tuple[Ids, Ids]]:
    """The pairs of both logs, of which the rows of the later one train, and their ids.

    Args:
        log: The later log.
        estimator: Networks on the pairs of the first log.
        ids: Users and items by index.
        params: Of the fit: names of columns, threshold.
        config: Of the fit.

    Raises:
        InputError: If the log is damaged.
    """
    space = estimator.space
    if space.cells is not None:
        raise InputError("This model knows a part of users x items only; fit again on both logs.")
    names = [str(params[key]) for key in ("user", "item", "rating")]
    check_columns(log, names, "the log")
    table = to_arrow(log, names, "the log")
    if not table.num_rows:
        raise InputError("The log has no rows; give at least one (user, item, rating) row.")
    read = collect(table.to_batches(BLOCK), names, "the log")
    known = (space.n_users, space.n_items)
    users = joined(ids[0], known[0], space.features[0], read.users, "user")
    items = joined(ids[1], known[1], space.features[1], read.items, "item")
    limits = config.dataset.rating_range
    rows = Interactions.validated(
        *resolve_duplicates(
            users.index, items.index, read.ratings, items.size, config.dataset.duplicates
        ),
        users.size,
        items.size,
        source="the log",
        rating_range=None if limits is None else (limits[0], limits[1]),
        ids=(users.ids, items.ids),
    )
    before = space.keys.cpu()
    before = torch.div(before, known[1], rounding_mode="floor") * items.size + before % known[1]
    keys = torch.unique(torch.cat([before, rows.keys]))
    place = torch.searchsorted(keys, rows.keys)
    target = space.target
    if isinstance(target, Positive):  # whose rule no file keeps
        target = Positive(LabelRule(float(params["label_threshold"]), config.dataset.label_strict))
    labels, held = torch.zeros(len(keys)), torch.ones(len(keys), dtype=torch.bool)
    labels[place], held[place] = target.labels(rows.ratings), False
    later = PairSpace(
        keys,
        labels,
        users.size,
        items.size,
        space.seeds.tolist(),
        features=(users.features, items.features),
        target=target,
        held=held,
    )
    return later, (users.ids, items.ids)
