"""The Python API: fit a data frame; ``docs/api.md`` shows it in use."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig

from upo.core.console import say
from upo.core.given import column_names, flag, whole
from upo.core.seeds import parse_seeds
from upo.data.datamodule import InMemoryDataModule
from upo.data.frames import Columns, rating_data_from_frames
from upo.data.interactions import LabelRule
from upo.data.later import later_as_test
from upo.data.observations import observations_from_frame
from upo.data.rating_data import report
from upo.errors import InputError
from upo.fitted import Fitted, load
from upo.fitted.model import OBSERVED
from upo.fitted.settings import as_library, composed_run, flat, plain, resolved
from upo.metrics.names import DIAGNOSED, measured_on_test, worth
from upo.pairs.target import TARGETS
from upo.propensity import learned
from upo.runs.auto import preferred
from upo.runs.compose import choices, chosen, composed
from upo.runs.config import check
from upo.runs.experiment import Experiment
from upo.runs.folder import result_rows
from upo.runs.remarks import due
from upo.runs.results import FIXED, LAST
from upo.runs.tuned import NOT_TUNED, values_of, words_for
from upo.tables.ids import check_columns

if TYPE_CHECKING:
    from upo.runs.search import Budget, Found  # which loads Optuna

__all__ = ["Fitted", "fit", "load", "tune"]
BATCH = 4  # trials of a round that is not asked for


def fit(
    train: Any,
    *,
    estimator: str | None = None,
    test: Any = None,
    seeds: Any = 1,
    user: str = "user",
    item: str = "item",
    rating: str = "rating",
    time: str | None = None,
    label_threshold: float = 3.0,
    target: str = "positive",
    user_features: Any = None,
    item_features: Any = None,
    tune: int | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Fitted:
    """Train an estimator on a table of ratings that are missing not at random.

    A tenth of ``train``, drawn by seed, is held out and chooses the epoch. No file is written.

    Args:
        train: The biased log: a pandas, polars or pyarrow table with a user, an item and a rating
            in each row; ids may be text or numbers.
        estimator: A name of ``conf/estimator``; ``conf/train.yaml`` says which by default: UPO-DR.
        test: Ratings of uniformly drawn pairs, if there are any: read once, for the metrics.
        seeds: A count, or a list of seeds; all train at once.
        user: Name of the user column.
        item: Name of the item column.
        rating: Name of the rating column.
        time: Name of a column of times in ``train``: numbers, dates or timestamps, for
            ``protocol="time"``, which holds out the latest tenth in place of a drawn one.
        label_threshold: Ratings of at least this are positive.
        target: What is predicted: P(``positive`` rating); the ``rating`` itself, by squared error
            and clipped to the scale of the log; or what is ``observed``, for a log of clicks that
            has no ratings: then the propensity alone is trained, and answers.
        user_features: A table with the user column and columns of numbers or of categories (text
            of few values), a row for every user of both tables. BMSE measures balance over them,
            and ``fm`` networks read them: these also answer for users without a rating, if the
            table has rows of them.
        item_features: The same for items.
        tune: Search this many trials first, as ``upo.tune`` does, and take the best one's values.
        progress: Draw progress bars.
        **overrides: Settings of ``train.py``: ``duplicates="mean"``, ``protocol="mar_holdout"``,
            ``trainer={"accelerator": "cpu"}``, ``**{"estimator.weighting.p_min": 0.1}``, or any
            number of dotted keys as ``overrides={...}``.

    Raises:
        InputError: If the data or a setting is wrong; the message says what and how to fix it.

    Warns:
        FailedSeedsWarning: If the replicas of some seeds diverged; the model is that of the others.
        UnseenIdsWarning: If most rows of ``test`` have a user or an item that ``train`` lacks.
        RareLabelsWarning: If fewer than a fiftieth of the ratings are positive, or are not.
        UselessModelWarning: If the model of a seed is not better than the constant prediction by
            two standard errors, in log-loss (or squared error) on the validation rows.
        UselessWeightsWarning: If most rows of the log lie at the clip and the others' weights
            differ little, or if all have one propensity.
    """
    _given(train)
    progress = flag("progress", progress)
    numbers, settings = parse_seeds(seeds), flat(overrides)
    if target not in (*TARGETS, OBSERVED):
        raise InputError(f"target must be {', '.join(TARGETS)} or {OBSERVED}, got {target!r}.")
    if target == OBSERVED:
        if tune is not None:
            raise InputError("target='observed' trains no prediction to tune; leave tune= out.")
        if test is not None:
            raise InputError(
                "target='observed' reads no ratings, so there is nothing to test; leave test= out."
            )
        column_names(user=user, item=item)
        check_columns(train, [user, item], "train")
        return learned(
            observations_from_frame(
                train,
                user=user,
                item=item,
                user_features=user_features,
                item_features=item_features,
            ),
            settings,
            columns=(user, item),
            seeds=numbers,
            progress=progress,
            params={
                "estimator": estimator,
                "seeds": numbers,
                **{"user": user, "item": item, "rating": rating, "target": target},
                "label_threshold": float(label_threshold),
                "overrides": {key: plain(value) for key, value in settings.items()},
            },
            estimator=estimator,
        )
    table = _Table(
        (train, test),
        Columns(user, item, rating, time),
        label_threshold,
        (user_features, item_features),
    )
    settings["target"] = target
    config, module = table.read(estimator, {**settings, "seeds": numbers})
    dataset, data = config.dataset, module.data
    if tune is not None:
        from upo.runs.search import Budget

        budget = Budget(whole("tune, a number of trials,", tune, 1, 16), BATCH, 1)
        found = _search(config, module, budget, None, progress, given=list(settings))
        taken, words = found.overrides, [NOT_TUNED]
    else:
        words, said = words_for(config, data)
        taken = values_of(words)
        if said is not None and progress:
            say(said)
    if taken:  # otherwise it stays as it was read with
        settings = {**taken, **settings}
        config = composed_run(estimator, {**settings, "seeds": numbers}, words)
    with as_library():
        experiment, choice = preferred(Experiment(config, datamodule=module, progress=progress))
        if choice is not None:
            settings = {**settings, "auto": False, **choice.kept}
            if progress:
                say(str(choice))
        result = experiment.run()
    # without a test set nothing is known of the errors outside the log, so nothing of their bias
    result.metrics = {name: value for name, value in result.metrics.items() if value.dim()}
    columns = measured_on_test(dataset.k, target)
    names = [*FIXED, *columns, *worth(target), *DIAGNOSED, *LAST]
    rows = result_rows(result, experiment)
    for text, kind in due(rows, result.failures, data, target):
        warnings.warn(text, kind, stacklevel=2)
    user_ids, item_ids = data.known_user_ids, data.known_item_ids
    assert user_ids is not None  # frames always come with ids
    assert item_ids is not None
    return Fitted(
        result.estimator,
        resolved(experiment.config),
        metrics=pd.DataFrame(rows).reindex(columns=names),
        columns=(user, item),
        user_ids=user_ids,
        item_ids=item_ids,
        params={
            "estimator": config.estimator.name,
            "seeds": experiment.seeds,
            **{"user": user, "item": item, "rating": rating, "time": time},
            "label_threshold": float(label_threshold),
            "target": target,
            "overrides": {k: plain(v) for k, v in settings.items() if k != "target"},
        },
        about={"data": report(data), "protocol": experiment.label},
        target=target,
        out_of_fold=result.out_of_fold,
    )


def tune(
    train: Any,
    *,
    estimator: str | None = None,
    trials: int = 16,
    batch: int = BATCH,
    seeds: int = 1,
    search: str = "small",
    study: str | Path | None = None,
    user: str = "user",
    item: str = "item",
    rating: str = "rating",
    time: str | None = None,
    label_threshold: float = 3.0,
    target: str = "positive",
    user_features: Any = None,
    item_features: Any = None,
    progress: bool = True,
    **overrides: Any,
) -> "Found":
    """Search hyperparameters of an estimator on a table; the held-out rows judge.

    ``upo.fit(train, **upo.tune(train, ...).overrides)`` fits with the best ones. The trials of a
    round train together as replicas; each round is proposed from those before it.

    Args:
        train: The biased log, as in ``upo.fit``.
        estimator: A name of ``conf/estimator``.
        trials: In all, at least 1.
        batch: Trials of a round.
        seeds: Of each trial; their mean counts.
        search: A file of ``conf/search`` with the ranges.
        study: File that keeps the trials; a search that was killed goes on from there. None for
            none.
        user: Name of the user column.
        item: Name of the item column.
        rating: Name of the rating column.
        time: As in ``upo.fit``.
        label_threshold: Ratings of at least this are positive.
        target: ``positive`` or ``rating``, as in ``upo.fit``.
        user_features: As in ``upo.fit``.
        item_features: As in ``upo.fit``.
        progress: Draw a bar.
        **overrides: Settings, which are not searched.

    Returns:
        ``overrides``, its ``value`` (lower is better), ``trials`` as a frame, and ``remarks``.

    Raises:
        InputError: If the data or a setting is wrong, or every trial diverges.
    """
    from upo.runs.search import Budget

    budget, progress = Budget(trials, batch, seeds), flag("progress", progress)
    if target not in TARGETS:
        raise InputError(f"target of a search must be {' or '.join(TARGETS)}, got {target!r}.")
    table = _Table(
        (train, None),
        Columns(user, item, rating, time),
        label_threshold,
        (user_features, item_features),
    )
    settings = {**flat(overrides), "target": target}
    config, module = table.read(estimator, settings)
    return _search(config, module, budget, study, progress, search, list(settings))


def _given(train: Any) -> None:
    if train is None:
        raise InputError("train is None; give a data frame with a user, an item and a rating.")


@dataclass(frozen=True)
class _Table:
    """What a person hands over, checked when it is read."""

    frames: tuple[Any, Any]
    columns: Columns
    label_threshold: float
    features: tuple[Any, Any]

    def read(
        self, estimator: str | None, settings: dict[str, Any]
    ) -> tuple[DictConfig, InMemoryDataModule]:
        """The configuration, without tuned values, and the data."""
        train, test = self.frames
        _given(train)
        for number, (frame, source) in enumerate(((train, "train"), (test, "test"))):
            check_columns(frame, self.columns.of(number), source)
        for frame, key, source in zip(
            self.features, self.columns.of(1)[:2], ("user_features", "item_features"), strict=True
        ):
            check_columns(frame, [key], source)
        threshold = self.label_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, Real):  # numpy's, too
            raise InputError(f"label_threshold must be a number, got {threshold!r}; try 3.")
        config = composed_run(estimator, settings)
        dataset = config.dataset
        with as_library():
            check(config)
            limits = dataset.rating_range
            data = rating_data_from_frames(
                train,
                test,
                columns=self.columns,
                label_rule=LabelRule(float(threshold), dataset.label_strict),
                rating_range=None if limits is None else (limits[0], limits[1]),
                duplicates=dataset.duplicates,
                user_features=self.features[0],
                item_features=self.features[1],
                name=dataset.name,
            )
            data = later_as_test(data, dataset.test_after)
            return config, InMemoryDataModule(data, dataset.drop_overlap, dataset.k)


def _search(
    config: DictConfig,
    module: InMemoryDataModule,
    budget: "Budget",
    file: str | Path | None,
    progress: bool,
    search: str = "small",
    given: Sequence[str] = (),
) -> "Found":
    """Search on a table that is read."""
    from upo.runs.search import open_study, searched
    from upo.runs.search_space import space_of

    chosen("search", search, choices("search"))
    wanted = composed([], f"search/{search}").search
    space = space_of(config, wanted, given)
    with as_library():
        experiment = Experiment(config, datamodule=module, progress=False)
        study = open_study(file, config, space, budget, module.data)
        return searched(experiment, study, space, budget, progress=progress)
