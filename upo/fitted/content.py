"""What a saved model must hold before anything is built of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from upo.core.seeds import MOST
from upo.fitted.answers import Answers
from upo.models.estimator import Derived, Estimator
from upo.pairs.target import Rating
from upo.runs.crossfit import OutOfFold
from upo.tables.ids import restored_ids
from upo.tables.numbering import Ids

TARGETS = ("positive", "rating", "observed")
PAIRS = 2**62  # users x items, whose keys are int64


class ContentError(ValueError):
    """Something in the file does not fit; the message ends a sentence."""


@dataclass(frozen=True)
class Content:
    """The checked content of a model file.

    Attributes:
        config: YAML text of the estimator.
        networks: Its state.
        seeds: One for each replica.
        keys: ``[N]`` sorted keys of the log.
        size: Users and items of D; those that have an id beyond are known by their columns alone.
        features: Columns of the users and of the items, a row for each id.
        columns: Names of the user and the item.
        user_ids: By index, all different.
        item_ids: By index, all different.
        metrics: A row for each seed, or none; seeds that diverged have one, too.
        params: Arguments of ``upo.fit``, if the model comes from there.
        target: What predictions are of.
        cells: ``[M]`` sorted keys of D, where a table listed them.
        about: What the model card says of how it was made.
        scale: Of predicted ratings: least, largest, mean, standard deviation.
        out_of_fold: Propensities of pairs by what had not seen them, of a calibrated model.
    """

    config: str
    networks: dict[str, Tensor]
    seeds: list[int]
    keys: Tensor
    size: tuple[int, int]
    features: tuple[Tensor | None, Tensor | None]
    columns: tuple[str, str]
    user_ids: Ids
    item_ids: Ids
    metrics: pd.DataFrame
    params: dict[str, Any] | None
    target: str = "positive"
    cells: Tensor | None = None
    about: dict[str, str] = field(default_factory=dict)
    scale: tuple[float, float, float, float] | None = None
    out_of_fold: OutOfFold | None = None


def checked(content: Mapping[str, Any]) -> Content:
    """The content, if every part of it fits the others.

    Raises:
        ContentError: If one does not.
    """
    networks = content.get("networks")
    if not _is_state(networks):
        raise ContentError("its networks are no tensors by name")
    config = content.get("config")
    if not isinstance(config, str):
        raise ContentError("its configuration is no text")
    ids = [_ids(content.get(f"{kind}_ids"), kind) for kind in ("user", "item")]
    columns = content.get("columns")
    if not (
        isinstance(columns, list | tuple)
        and len(columns) == len(set(columns)) == 2
        and all(isinstance(name, str) and name for name in columns)
    ):
        raise ContentError("it does not name two different columns")
    seeds = check_seeds(content.get("seeds"))
    known = [len(x) for x in ids]
    size = _size(content.get("size", known), known)
    params = content.get("params")
    if params is not None and not isinstance(params, dict):
        raise ContentError("its parameters have no names")
    target = content.get("target", "positive")
    if target not in TARGETS:
        raise ContentError("it predicts something unknown")
    keys = _keys(content.get("keys"), *size)
    cells = content.get("cells")
    if cells is not None:
        cells = _keys(cells, *size)
        if not bool(torch.isin(keys, cells).all()):
            raise ContentError("its log has pairs outside D")
    return Content(
        config=config,
        networks=dict(networks or {}),
        seeds=seeds,
        keys=keys,
        size=size,
        features=_features(content.get("features", [None, None]), known),
        columns=(columns[0], columns[1]),
        user_ids=ids[0],
        item_ids=ids[1],
        metrics=_metrics(content.get("metrics"), seeds),
        params=params,
        target=target,
        cells=cells,
        about=_about(content.get("about", {})),
        scale=_scale(content.get("scale")) if target == "rating" else None,
        out_of_fold=_out_of_fold(content.get("out_of_fold"), keys, cells, size, len(seeds)),
    )


def _about(about: Any) -> dict[str, str]:
    right = isinstance(about, dict) and len(about) <= 10
    if not right or not all(type(x) is str and len(x) < 2**16 for y in about.items() for x in y):
        raise ContentError("what it says of how it was made is no text")
    return dict(about)


def _scale(scale: Any) -> tuple[float, float, float, float]:
    right = isinstance(scale, list) and len(scale) == 4
    if not right or not all(type(x) is float and math.isfinite(x) for x in scale):
        raise ContentError("it predicts ratings without a scale")
    low, high, centre, spread = scale
    if not (low <= centre <= high and low < high and 0 < spread <= high - low):
        raise ContentError("its scale of ratings is none")
    return low, high, centre, spread


def _out_of_fold(
    found: Any, keys: Tensor, cells: Tensor | None, size: tuple[int, int], replicas: int
) -> OutOfFold | None:
    if found is None:
        return None
    wrong = ContentError("what it says out of fold is no propensity of pairs")
    if not _is_state(found) or set(found) != set(OutOfFold._fields):
        raise wrong
    others, p = found["others"], found["propensity"]
    if others.dtype != torch.int64 or others.dim() != 1 or p.dtype != torch.float32:
        raise wrong
    inside = (others >= 0) & (others < size[0] * size[1]) & ~torch.isin(others, keys)
    if cells is not None:
        inside &= torch.isin(others, cells)
    right = bool(inside.all()) and len(torch.unique(others)) == len(others)
    right = right and p.shape == (replicas, len(keys) + len(others))
    if not right or not bool(((p >= 0) & (p <= 1)).all()):
        raise wrong
    return OutOfFold(others, p)


def check_seeds(seeds: Any) -> list[int]:
    """Seeds as a run may have them.

    Raises:
        ContentError: If they are none, too many, repeated, or no whole numbers of at least 0.
    """
    right = isinstance(seeds, list) and 0 < len(seeds) <= MOST
    if not right or not all(type(s) is int and 0 <= s < 2**63 for s in seeds):
        raise ContentError(f"its seeds are not 1 to {MOST:,} whole numbers of at least 0")
    if len(set(seeds)) < len(seeds):
        raise ContentError("it names a seed twice")
    return list(seeds)


def check_networks(estimator: Estimator, state: Mapping[str, Tensor]) -> None:
    """Load a state, and see that the networks answer.

    Raises:
        ContentError: If names or shapes differ, a weight is not finite, roles are derived from
            themselves, or an answer fails.
    """
    _check_sources(estimator.networks)
    as_wide(estimator, state)
    own = estimator.state_dict()
    edges = "bins.edges"  # grows when it is first computed
    wrong = next(
        (
            name
            for name in {*own, *state}
            if name not in own
            or name not in state
            or (own[name].shape != state[name].shape and name != edges)
            or own[name].dtype != state[name].dtype
        ),
        None,
    )
    if wrong is not None:
        raise ContentError(f"its networks have other names or sizes at {wrong[:60]!r}")
    estimator.load_state_dict(dict(state))
    for name, weights in estimator.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise ContentError(f"a weight of {name[:60]} is not finite")
    asked = torch.tensor([0])
    answers = Answers(estimator)
    for what in ("prediction", *(["propensity"] if estimator.has_propensity else [])):
        value, target = answers.values(what, asked, asked), estimator.space.target
        low, high, kind = 0.0, 1.0, "probability"
        if what == "prediction" and isinstance(target, Rating):
            low, high, kind = target.low, target.high, "rating of its scale"
        if value.shape != (estimator.space.replicas, 1) or not bool(
            ((value >= low) & (value <= high)).all()
        ):
            raise ContentError(f"its {what} of a pair is no {kind}")


def as_wide(estimator: Estimator, state: Mapping[str, Tensor]) -> Estimator:
    """The estimator in float64 if it was trained so (``trainer.precision=64-true``)."""
    wide = {x.dtype for x in state.values() if x.is_floating_point()} == {torch.float64}
    return estimator.double() if wide else estimator


def _check_sources(networks: nn.ModuleDict) -> None:
    """Roles are derived from others that are there, and none from itself in the end."""
    open_roles = {
        str(role): set(network.sources) if isinstance(network, Derived) else set()
        for role, network in networks.items()
    }
    while open_roles:
        ready = [role for role, sources in open_roles.items() if not sources & set(open_roles)]
        if not ready:
            raise ContentError("its networks are derived from themselves")
        for role in ready:
            if not open_roles.pop(role) <= set(networks):
                raise ContentError(f"its network {role[:40]} is derived from one that is missing")


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )


def _ids(ids: Any, kind: str) -> Ids:
    if not isinstance(ids, list) or not ids:
        raise ContentError(f"it has no {kind} ids")
    text = type(ids[0]) is str
    if not all(type(x) is (str if text else int) for x in ids):
        raise ContentError(f"its {kind} ids are neither all text nor all whole numbers")
    if not text and not all(-(2**63) <= x < 2**63 for x in ids):
        raise ContentError(f"its {kind} ids are beyond 64 bits")
    if len(set(ids)) < len(ids):
        raise ContentError(f"two of its {kind}s have one id")
    return restored_ids(ids)


def _size(size: Any, known: list[int]) -> tuple[int, int]:
    right = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
    if not right or not all(0 < n <= most for n, most in zip(size, known, strict=True)):
        raise ContentError("it has more users or items than ids")
    return size[0], size[1]


def _features(features: Any, known: list[int]) -> tuple[Tensor | None, Tensor | None]:
    right = isinstance(features, list) and len(features) == 2
    for columns, rows in zip(features if right else [], known, strict=False):
        if columns is not None:
            right = right and isinstance(columns, Tensor) and columns.dim() == 2
            right = right and len(columns) == rows and columns.is_floating_point()
            right = right and bool(torch.isfinite(columns).all())
    if not right:
        raise ContentError("its features are no columns of numbers with a row for each id")
    return features[0], features[1]


def _keys(keys: Any, n_users: int, n_items: int) -> Tensor:
    if not isinstance(keys, Tensor) or keys.dtype != torch.int64 or keys.dim() != 1:
        raise ContentError("its log is no list of keys")
    if n_users * n_items > PAIRS or not len(keys):
        raise ContentError("its log is empty or too large")
    if not bool((keys[1:] > keys[:-1]).all()):
        raise ContentError("its log is not sorted or repeats a pair")
    if int(keys[0]) < 0 or int(keys[-1]) >= n_users * n_items:
        raise ContentError("its log holds pairs of no user or item")
    return keys


def _metrics(metrics: Any, seeds: list[int]) -> pd.DataFrame:
    """A row for each seed, those that diverged and have no networks included."""
    tried = metrics.get("seed") if isinstance(metrics, dict) else None
    rows = len(seeds)
    if isinstance(tried, list) and len(tried) <= MOST and all(seed in tried for seed in seeds):
        rows = len(tried)
    right = isinstance(metrics, dict) and all(
        isinstance(name, str)
        and isinstance(values, list)
        and len(values) in (0, rows)
        and all(value is None or isinstance(value, bool | int | float | str) for value in values)
        and all(abs(value) < 2**63 for value in values if type(value) is int)
        for name, values in metrics.items()
    )
    if not right or len({len(values) for values in metrics.values()}) > 1:
        raise ContentError("its metrics are no table with a row for each seed")
    return pd.DataFrame(dict(metrics))


def members(metrics: pd.DataFrame, seeds: Sequence[int]) -> tuple[list[int], int]:
    """Which of the replicas that were tried have networks, and how many were tried.

    Args:
        metrics: A row for each that was tried, with its ``seed``; or none.
        seeds: Of the networks.
    """
    tried = metrics["seed"].tolist() if len(metrics) and "seed" in metrics else list(seeds)
    return [tried.index(seed) for seed in seeds], len(tried)


def elements(networks: Mapping[str, Tensor]) -> int:
    """Numbers that the state holds in all."""
    return sum(math.prod(tensor.shape) for tensor in networks.values())
