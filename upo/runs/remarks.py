"""What a run says about its own worth: sentences on its rows of results."""

import math
from collections.abc import Mapping, Sequence

from upo.data.rating_data import RatingData, unseen_share
from upo.errors import (
    FailedSeedsWarning,
    RareLabelsWarning,
    UnseenIdsWarning,
    UselessModelWarning,
    UselessWeightsWarning,
)
from upo.metrics.names import JUDGE
from upo.runs.results import Row, seed_failed, spread
from upo.training.stack import REMEDY

RARE = 0.02  # a smaller share of positives or of others is remarked on
WORTH = 0.01  # of the constant's error: what a model gains, if it gains anything
MOST = 0.5  # a larger share of the log at the clip is remarked on
SPELLED = {"log_loss": "log-loss", "mse": "squared error"}
NEARLY_ALL = 0.9  # effective sample size up to which the others do tell something
ALIKE = 0.9999  # effective sample size at which weights differ by 1 %


def useless_seeds(rows: Sequence[Row]) -> list[int]:
    """Seeds whose model is not better than the constant by two standard errors on validation.

    >>> row = {"seed": 3, "val_log_loss": 0.68, "val_constant_log_loss": 0.69}
    >>> useless_seeds([{**row, "val_gain_error": 0.01}, {**row, "val_gain_error": 0.001}])
    [3]
    """
    return [
        int(row["seed"])
        for row in rows
        for judge in _judges(row)
        if not seed_failed(row)
        and not (
            float(row[f"val_constant_{judge}"]) - float(row[f"val_{judge}"])
            > 2 * float(row["val_gain_error"])
        )
    ]


def _judges(row: Row) -> list[str]:
    """The error by which a row was judged on validation rows, if it was."""
    return [judge for judge in JUDGE.values() if f"val_{judge}" in row]


def useless_model(rows: Sequence[Row]) -> str | None:
    """A sentence if a seed's model is worthless."""
    seeds = useless_seeds(rows)
    if not seeds:
        return None
    (judge,) = _judges(rows[0])
    model, constant, error = (
        spread([float(row[name]) for row in rows if int(row["seed"]) in seeds])["mean"]
        for name in (f"val_{judge}", f"val_constant_{judge}", "val_gain_error")
    )
    who = "The model" if len(rows) == 1 else f"The model of {len(seeds)} of {len(rows)} seeds"
    found = f"{SPELLED[judge]} {model:.5g} against {constant:.5g} on the validation rows, where "
    found += (
        "two standard errors cannot be told"
        if math.isnan(error)
        else (f"two standard errors of the difference are {2 * error:.2g}")
    )
    if constant - model > WORTH * constant and not math.isnan(error):
        return (
            f"{who} is not clearly better than the constant prediction (the training mean): "
            f"{found}, more than so few rows can tell; give more ratings, hold more of them out "
            "(protocol.share), or train longer."
        )
    return (
        f"{who} is no better than the constant prediction (the training mean): {found}; try "
        "another learning rate, less weight decay or more epochs, or give more ratings."
    )


def rare_labels(data: RatingData, target: str) -> str | None:
    """A sentence if nearly all ratings of the log are positive, or nearly none."""
    if target != "positive" or not data.labelled:
        return None
    share = data.train.positive_share(data.label_rule)
    if RARE <= share <= 1 - RARE:
        return None
    return (
        f"{share:.2%} of the ratings are positive ({data.label_rule}), so there is little to learn "
        "from the others; if that is not meant, set label_threshold (dataset.label_threshold), or "
        "target=rating."
    )


def useless_weights(rows: Sequence[Row]) -> str | None:
    """A sentence if most weights of the log are one and the same, and the others tell little."""
    shares, sizes = (
        [float(row.get(name, math.nan)) for row in rows]
        for name in ("clip_share", "effective_sample_size")
    )
    clipped = [p for p, n in zip(shares, sizes, strict=True) if p > MOST and not n < NEARLY_ALL]
    if clipped:
        return (
            f"{max(clipped):.0%} of the log's rows have a propensity below the clip, so they carry "
            "one and the same weight; lower estimator.weighting.p_min (0 is no clip)."
        )
    if any(size > ALIKE for size in sizes):
        return (
            "The propensities of the log's rows are all alike (they differ by less than 1 %), so "
            "the weights correct nothing; train the propensity longer, or use estimator=naive."
        )
    return None


def unseen_test(data: RatingData) -> str | None:
    """A sentence if most of the test set asks for what has no training row."""
    share = unseen_share(data)
    if share <= MOST:
        return None
    return (
        f"{share:.1%} of the test rows have a user or an item without a training row; if that is "
        "not meant, compare how the ids of both tables are spelled."
    )


def failures_said(failures: Mapping[int, str], replicas: int) -> str | None:
    """A sentence if replicas diverged.

    Args:
        failures: What became of each, by number.
        replicas: Of the run.
    """
    if not failures:
        return None
    first, *more = (failures[replica] for replica in sorted(failures))
    others = f" ({len(more)} more failed likewise)" if more else ""
    return (
        f"{len(failures)} of {replicas} replicas failed, the others are as they would be alone: "
        f"{first}{others}; {REMEDY}"
    )


def due(
    rows: Sequence[Row],
    failures: Mapping[int, str] | None = None,
    data: RatingData | None = None,
    target: str = "positive",
) -> list[tuple[str, type[UserWarning]]]:
    """All that is to be said, worst first, and what kind of warning each is.

    Args:
        rows: A row for each seed.
        failures: What became of replicas that diverged, by number.
        data: What they were trained and measured on.
        target: What is predicted.
    """
    found = [
        (failures_said(failures or {}, len(rows)), FailedSeedsWarning),
        (None if data is None else unseen_test(data), UnseenIdsWarning),
        (None if data is None else rare_labels(data, target), RareLabelsWarning),
        (useless_model(rows), UselessModelWarning),
        (useless_weights(rows), UselessWeightsWarning),
    ]
    return [(text, kind) for text, kind in found if text is not None]


def remarks(
    rows: Sequence[Row],
    failures: Mapping[int, str] | None = None,
    data: RatingData | None = None,
    target: str = "positive",
) -> list[str]:
    """The sentences of ``due``."""
    return [text for text, _ in due(rows, failures, data, target)]
