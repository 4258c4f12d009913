"""The Python API: fit a data frame; ``docs/api.md`` shows it in use."""

import warnings
from typing import Any

import pandas as pd

from upo.core.console import say
from upo.core.seeds import parse_seeds
from upo.data.datamodule import InMemoryDataModule
from upo.data.frames import Columns, rating_data_from_frames
from upo.data.interactions import LabelRule
from upo.data.observations import observations_from_frame
from upo.errors import FailedSeedsWarning, InputError, UselessModelWarning, UselessWeightsWarning
from upo.fitted import Fitted, load
from upo.fitted.model import OBSERVED
from upo.fitted.settings import as_library, composed_run, flat, plain, resolved
from upo.metrics.names import DIAGNOSED, WORTH, measured_on_test
from upo.propensity import learned
from upo.runs.auto import chosen
from upo.runs.config import check
from upo.runs.experiment import Experiment
from upo.runs.folder import result_rows
from upo.runs.remarks import failures_said, useless_model, useless_weights
from upo.runs.results import FIXED, LAST
from upo.tables.ids import check_columns

__all__ = ["Fitted", "fit", "load"]


def fit(
    train: Any,
    *,
    estimator: str | None = None,
    test: Any = None,
    seeds: Any = 1,
    user: str = "user",
    item: str = "item",
    rating: str = "rating",
    label_threshold: float = 3.0,
    target: str = "positive",
    user_features: Any = None,
    item_features: Any = None,
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
        label_threshold: Ratings of at least this are positive.
        target: What is predicted: ``positive`` ratings, or what is ``observed``, for a log of
            clicks that has no ratings: then the propensity alone is trained, and answers.
        user_features: A table with the user column and columns of numbers or of categories (text
            of few values), a row for every user of both tables. BMSE measures balance over them,
            and ``fm`` networks read them: these also answer for users without a rating, if the
            table has rows of them.
        item_features: The same for items.
        progress: Draw progress bars.
        **overrides: Settings of ``train.py``: ``protocol="mar_holdout"``,
            ``trainer={"accelerator": "cpu"}``, ``**{"estimator.weighting.p_min": 0.1}``, or any
            number of dotted keys as ``overrides={...}``.

    Raises:
        InputError: If the data or a setting is wrong; the message says what and how to fix it.

    Warns:
        FailedSeedsWarning: If the replicas of some seeds diverged; the model is that of the others.
        UselessModelWarning: If the model of a seed is not better than the constant prediction by
            two standard errors, in log-loss on the validation rows.
        UselessWeightsWarning: If most rows of the log lie at the clip, or have one propensity.
    """
    columns = Columns(user, item, rating)
    if train is None:
        raise InputError("train is None; give a data frame with a user, an item and a rating.")
    if target not in ("positive", OBSERVED):
        raise InputError(f"target must be positive or observed, got {target!r}.")
    if target == OBSERVED:
        if test is not None:
            raise InputError(
                "target='observed' reads no ratings, so there is nothing to test; leave test= out."
            )
        check_columns(train, [user, item], "train")
        return learned(
            observations_from_frame(
                train,
                user=user,
                item=item,
                user_features=user_features,
                item_features=item_features,
            ),
            flat(overrides),
            columns=(user, item),
            seeds=parse_seeds(seeds),
            progress=progress,
            params={
                "estimator": estimator,
                "seeds": parse_seeds(seeds),
                **{"user": user, "item": item, "rating": rating, "target": target},
                "label_threshold": float(label_threshold),
                "overrides": {key: plain(value) for key, value in flat(overrides).items()},
            },
            estimator=estimator,
        )
    for frame, source in ((train, "train"), (test, "test")):
        check_columns(frame, [user, item, rating], source)
    for frame, key, source in (
        (user_features, user, "user_features"),
        (item_features, item, "item_features"),
    ):
        check_columns(frame, [key], source)
    if isinstance(label_threshold, bool) or not isinstance(label_threshold, int | float):
        raise InputError(f"label_threshold must be a number, got {label_threshold!r}; try 3.")
    settings = flat(overrides)
    config = composed_run(estimator, {**settings, "seeds": parse_seeds(seeds)})
    dataset = config.dataset
    with as_library():
        check(config)
        limits = dataset.rating_range
        data = rating_data_from_frames(
            train,
            test,
            columns=columns,
            label_rule=LabelRule(float(label_threshold), dataset.label_strict),
            rating_range=None if limits is None else (limits[0], limits[1]),
            duplicates=dataset.duplicates,
            user_features=user_features,
            item_features=item_features,
            name=dataset.name,
        )
        module = InMemoryDataModule(data, dataset.drop_overlap, dataset.k)
        experiment, choice = chosen(Experiment(config, datamodule=module, progress=progress))
        if choice is not None:
            settings = {**settings, "auto": False, **choice.kept}
            if progress:
                say(str(choice))
        result = experiment.run()
    # without a test set nothing is known of the errors outside the log, so nothing of their bias
    result.metrics = {name: value for name, value in result.metrics.items() if value.dim()}
    names = [*FIXED, *measured_on_test(dataset.k), *WORTH, *DIAGNOSED, *LAST]
    rows = result_rows(result, experiment)
    for text, kind in (
        (failures_said(result.failures, len(rows)), FailedSeedsWarning),
        (useless_model(rows), UselessModelWarning),
        (useless_weights(rows), UselessWeightsWarning),
    ):
        if text is not None:
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
            **{"user": user, "item": item, "rating": rating},
            "label_threshold": float(label_threshold),
            "overrides": {key: plain(value) for key, value in settings.items()},
        },
    )
