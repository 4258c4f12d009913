"""Propensities and scores as components of LensKit's pipelines; ``docs/lenskit.md`` shows both.

Needs LensKit (``pip install upo[lenskit]``). A component learns from a Dataset's default
interactions and answers for item lists; ids stay those of the Dataset.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

try:
    from lenskit.data import Dataset, ItemList, QueryInput, RecQuery
    from lenskit.diagnostics import DataError, FieldError
    from lenskit.pipeline import Component
    from lenskit.training import Trainable, TrainingOptions
    from pydantic import BaseModel, JsonValue, ValidationError
except ImportError as error:
    raise ImportError(
        "upo.lenskit needs LensKit, 2025.6 or later; install it: pip install upo[lenskit]."
    ) from error

from upo.api import fit
from upo.errors import InputError
from upo.fitted import Fitted, NotFittedError
from upo.propensity import Propensity
from upo.tables.ids import Places

USER, ITEM, RATING, PROPENSITY = "user_id", "item_id", "rating", "propensity"  # as LensKit has them
PLAIN = TrainingOptions()
Array = np.ndarray[Any, Any]


class CommonConfig(BaseModel, extra="forbid"):
    """Settings of both components; a pipeline's configuration file may hold them.

    Attributes:
        seeds: A count or a list of seeds, whose mean answers. With ``TrainingOptions.rng``, a count
            is of seeds that it draws.
        unseen: What users and items without training interactions get: ``nan``, which a pipeline's
            fallback fills, or the ``mean`` that ``upo.Fitted`` gives them.
        progress: Draw progress bars.
        overrides: Further settings of ``upo.fit`` by dotted key.
    """

    seeds: int | list[int] = 1
    unseen: Literal["nan", "mean"] = "nan"
    progress: bool = False
    overrides: dict[str, JsonValue] = {}

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                known = ", ".join(type(self).model_fields)
                text = f"{type(self).__name__} has no setting {key!r}; known are {known}."
            else:
                text = f"{key} of {type(self).__name__}: {first['msg']}, got {first['input']!r}."
            raise InputError(text) from error


class UPOConfig(CommonConfig):
    """Settings of a ``UPOScorer``, beside those of ``CommonConfig``.

    Attributes:
        estimator: A name of ``conf/estimator``, as in ``upo.fit``.
        label_threshold: Ratings of at least this are positive.
        target: ``positive`` (scores are probabilities) or ``rating``.
        tune: Trials of a search before, or None.
    """

    estimator: str | None = None
    label_threshold: float = 3.0
    target: Literal["positive", "rating"] = "positive"
    tune: int | None = None


class PropensityConfig(CommonConfig):
    """Settings of a ``PropensityLookup``, beside those of ``CommonConfig``.

    Attributes:
        kind: A name of ``conf/propensity``, as in ``upo.Propensity``.
        calibrate: Correction on cells that copies did not see.
        folds: Parts of D for that.
    """

    kind: str = "upo"
    calibrate: str = "none"
    folds: int = 5


class _Learned(Component[ItemList], Trainable):  # type: ignore[misc]
    """A component with a model of users and items.

    Attributes:
        model: The fitted model, once trained.
    """

    config: CommonConfig
    model: Fitted

    @classmethod
    def validate_config(cls, data: Any = None) -> Any:
        """The configuration that a mapping says, or the one given.

        Raises:
            InputError: If a setting is unknown or of another type.
        """
        kind: Any = cls.config_class()
        return kind(**(data or {})) if data is None or isinstance(data, Mapping) else data

    def is_trained(self) -> bool:
        """Whether ``train`` was called."""
        return hasattr(self, "model")

    def train(self, data: Dataset, options: TrainingOptions = PLAIN) -> None:
        """Learn from the Dataset's default interactions.

        Args:
            data: Users, items and what is between them.
            options: Whether to train anew, on which device, and what draws the seeds.

        Raises:
            InputError: If the Dataset or a setting is wrong.
        """
        if self.is_trained() and not options.retrain:
            return
        seeds = self.config.seeds
        if options.rng is not None and isinstance(seeds, int) and seeds > 0:
            seeds = options.random_generator().choice(2**31, seeds, replace=False).tolist()
        self.model = self._fit(data, seeds, {**_device(options.device), **self.config.overrides})
        self._places = Places(self.model.user_ids), Places(self.model.item_ids)

    @abstractmethod
    def _fit(self, data: Dataset, seeds: int | list[int], overrides: dict[str, Any]) -> Fitted:
        """A model of the Dataset's interactions."""

    def _values(self, what: str, query: QueryInput, items: ItemList) -> Array:
        """``[len(items)]`` answers for the query's user, NaN where the configuration says so."""
        if not self.is_trained():
            raise NotFittedError(
                f"This {type(self).__name__} is not trained; call .train(dataset) of its pipeline, "
                "or its own, first."
            )
        user = RecQuery.create(query).user_id
        ids = [] if user is None else [user], items.ids(format="arrow")
        both = zip(self._places, ids, strict=True)
        users, places = (known.find(pa.chunked_array([asked])) for known, asked in both)
        users = (users if len(users) else torch.tensor([-1])).expand(len(places))
        values = torch.full((len(places),), torch.nan, dtype=torch.float64)
        rows = slice(None) if self.config.unseen == "mean" else (users >= 0) & (places >= 0)
        values[rows] = self.model.answers.values(what, users[rows], places[rows]).mean(0)
        return values.numpy()


class UPOScorer(_Learned):
    """Scores items by the debiased predictions of ``upo.fit``.

    A score is that of ``upo.Fitted.recommend``: P(positive rating), or with ``target="rating"`` the
    rating before it is clipped to the scale. A query is known by its user; its history is not read.

    Args:
        config: A ``UPOConfig``, or its settings by keyword.

    Attributes:
        model: The fitted model, once trained: ``propensity``, ``save`` and the rest.
    """

    config: UPOConfig

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """The items with scores, NaN where user or item is unknown (``unseen="mean"``: none is).

        Raises:
            NotFittedError: If it is not trained.
        """
        return ItemList(items, scores=self._values("score", query, items))

    def _fit(self, data: Dataset, seeds: int | list[int], overrides: dict[str, Any]) -> Fitted:
        config = self.config
        return fit(
            _log(data, type(self).__name__, RATING),
            estimator=config.estimator,
            label_threshold=config.label_threshold,
            target=config.target,
            seeds=seeds,
            tune=config.tune,
            user=USER,
            item=ITEM,
            rating=RATING,
            progress=config.progress,
            overrides=overrides,
        )


class PropensityLookup(_Learned):
    """Adds to each item P(observed) of ``upo.Propensity``, as the field ``propensity``.

    It reads no rating. Scores, ranks and other fields of the list stay.

    Args:
        config: A ``PropensityConfig``, or its settings by keyword.

    Attributes:
        model: The fitted model, once trained: ``audit``, ``save`` and the rest.
    """

    config: PropensityConfig

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """The items with propensities in (0, 1), NaN where user or item is unknown.

        Raises:
            NotFittedError: If it is not trained.
        """
        return ItemList(items, **{PROPENSITY: self._values(PROPENSITY, query, items)})

    def _fit(self, data: Dataset, seeds: int | list[int], overrides: dict[str, Any]) -> Fitted:
        config = self.config
        learner = Propensity(
            config.kind,
            calibrate=config.calibrate,
            folds=config.folds,
            seeds=seeds,
            user=USER,
            item=ITEM,
            progress=config.progress,
            overrides=overrides,
        )
        return learner.fit(_log(data, type(self).__name__)).model


def _log(data: Any, asked_by: str, *fields: str) -> pa.Table:
    """The default interactions of a Dataset, with ids and fields.

    Raises:
        InputError: If there are none, or a field is missing.
    """
    if not isinstance(data, Dataset):
        raise InputError(
            f"{asked_by} trains on a Dataset of LensKit, got {type(data).__name__}; make one with "
            "lenskit.data.from_interactions_df(frame)."
        )
    try:
        table = data.interactions().arrow(attributes=list(fields), ids=True)
    except FieldError as error:
        raise InputError(
            f"The Dataset's interactions have no {' or '.join(fields)}, of which {asked_by} "
            "learns; give them one, or learn propensities alone with PropensityLookup."
        ) from error
    except (DataError, RuntimeError) as error:
        raise InputError(
            f"The Dataset says no default interactions ({error}); add them with "
            "DatasetBuilder.add_interactions(..., default=True)."
        ) from error
    absent = {USER, ITEM} - set(table.column_names)
    if absent:
        raise InputError(
            f"The Dataset's default interactions have no {' and no '.join(sorted(absent))}, and "
            f"{asked_by} needs pairs of users and items; make others the default."
        )
    return table


def _device(device: str | None) -> dict[str, Any]:
    """LensKit's word for a device, such as ``cuda:1``, as settings of a run."""
    if device is None:
        return {}
    kind, _, number = device.partition(":")
    place = {"trainer.devices": [int(number)]} if number.isdigit() else {}
    return {"trainer.accelerator": "gpu" if kind == "cuda" else kind, **place}
