"""Metrics of any model's scores over all pairs, from a biased log and its propensities."""

from collections.abc import Iterable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from upo.core.given import column_names, listed, whole
from upo.counterfactual.doubts import Doubt, doubt, doubt_of_pairs, warn
from upo.counterfactual.estimates import (
    ESTIMATORS,
    IMPUTING,
    RATIOS,
    Interval,
    Observed,
    Values,
    snips,
)
from upo.counterfactual.learned import Balance
from upo.counterfactual.metrics import METRICS, Metric, imputed_loss, top_k_weights
from upo.counterfactual.tables import Candidates, Log, read_tables
from upo.errors import InputError

COLUMNS = (
    "metric", "estimator", "estimate", "low", "high", "effective_sample_size", "n",
    "sum_over_pairs", "doubt",
)  # fmt: skip


def evaluate(
    log: Any,
    scores: Any,
    propensity: Any = "propensity",
    *,
    metrics: str | Iterable[str] = tuple(METRICS),
    k: int = 5,
    estimator: str | Iterable[str] = snips.__name__,
    imputed: str | None = None,
    label_threshold: float | None = 3.0,
    user: str = "user",
    item: str = "item",
    rating: str = "rating",
    score: str = "score",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Estimate metrics over all pairs from those that were observed.

    The pairs D that a metric averages over are the rows of ``scores``: all users x items, or the
    candidates of each user. Log rows outside D are not used. Scores must not have been fitted to
    the rows of ``log``: hold some out with ``upo.held_out``. Propensities of a model are learned
    ones: intervals then have their error to the first order (``upo.counterfactual.learned``), and
    are right where the model of the propensities is; those of a column or an array are taken for
    known.

    Args:
        log: Observed pairs: a frame with a user, an item and a rating in each row. Or what
            ``upo.held_out`` gives: its held-out rows are evaluated, D is what remains of ``scores``
            without the training rows, propensities are converted, and its names of the user and the
            item hold.
        scores: D: a frame with a user, an item and a score in each row. Or the name of a column of
            ``log``, where only those pairs were scored: then losses by SNIPS are all there is.
        propensity: P(observed) of each row of the log, in (0, 1], in the whole log where it was
            split: the name of a column, or an array in the order of the rows; a pandas Series goes
            by its index. Or what learns it: an unfitted ``upo.Propensity``, which is cross-fitted
            to the log (the whole one), or a fitted model or ``upo.Propensity``, of the log, or of
            the train part where it was split.
        metrics: Some of ``log_loss``, ``mse``, ``precision`` and ``ndcg_full`` (see
            ``upo.counterfactual.metrics``).
        k: Cutoff of the ranking metrics, at least 1.
        estimator: Inverse propensity scoring, its self-normalised form (the default) or doubly
            robust, by the names in ``upo.counterfactual.estimates.ESTIMATORS``; one or several.
        imputed: Column of ``scores`` with P(positive) (without a threshold, the rating) that some
            model expects; the doubly robust estimate needs it. It may not be made from this log's
            indicators, or the interval is too narrow.
        label_threshold: Ratings of at least this are positive; None takes ratings as they are, for
            ``mse`` of scores on their scale.
        user: Name of the user column.
        item: Name of the item column.
        rating: Name of the rating column.
        score: Name of the score column.
        confidence: Of the intervals, in (0, 1).

    Returns:
        A row for each metric and estimator: metric, estimator, estimate, low, high,
        effective_sample_size (Kish's, of the weights), n (observed pairs that count),
        sum_over_pairs (sum of the inverse propensities, as they were given, over the pairs of D or
        the weight of its lists, about 1 if they are right; NaN where D is not known), doubt
        (``no``, or why the row is not to be trusted: ``propensities`` that do not fit D, or ``one
        pair`` that stands for a part of it, see ``upo.counterfactual.doubts``).

    Warns:
        DoubtfulEstimateWarning: Where there is a doubt; with both numbers and what to do.

    Raises:
        InputError: If an argument or a table is wrong; the message says what and how to fix it.
    """
    column_names({"imputed": imputed}, user=user, item=item, rating=rating, score=score)
    names, methods = listed("metrics", metrics), listed("estimator", estimator)
    _check_names("metrics", names, list(METRICS))
    _check_names("estimator", methods, list(ESTIMATORS))
    k = whole("k", k, 1, 5)
    if not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise InputError(f"confidence must lie in (0, 1), got {confidence!r}; try 0.95.")
    columns = (user, item, rating, score)
    rows, candidates = read_tables(log, scores, propensity, imputed, label_threshold, columns)
    found: list[list[Any]] = []
    doubts: dict[str, Doubt] = {}
    of_pairs = doubt_of_pairs(rows, candidates)
    for name in names:
        metric = METRICS[name]
        _check_metric(name, metric, candidates, rows, labelled=label_threshold is not None)
        seen, factor, given = _observed(metric, rows, candidates, k, label_threshold is not None)
        label = name if metric.loss is not None else f"{name}@{k}"
        doubts[label] = doubt(seen, given, rows.learned, of_pairs)
        for method in methods:
            interval = _estimate(method, seen, float(ndtri(0.5 + confidence / 2)))
            values = [factor * value for value in interval]
            size = [seen.effective_sample_size, len(seen.weight)]
            found.append([label, method, *values, *size, doubts[label].ratio, doubts[label].kind])
    warn(doubts, stacklevel=2)
    return pd.DataFrame(found, columns=list(COLUMNS))


def _estimate(method: str, seen: Observed, z: float) -> Interval:
    if seen.total is None and method not in RATIOS:
        raise InputError(
            f"estimator {method} needs the size of D; give scores as a table of all candidates, "
            f"or use estimator={RATIOS[0]}."
        )
    if seen.imputed is None and method in IMPUTING:
        raise InputError(
            f"estimator {method} needs imputed values; name a column of scores with imputed=."
        )
    return ESTIMATORS[method](seen, z)


def _observed(
    metric: Metric, rows: Log, candidates: Candidates, k: int, labelled: bool
) -> tuple[Observed, float, Values]:
    """What the log shows of one metric, the factor of its mean over D, propensities as given."""
    scores, imputed = candidates.scores, candidates.imputed
    place = rows.place
    if metric.loss is None:
        assert metric.discounted is not None  # every metric has a loss or ranks
        weights, total = top_k_weights(candidates.users, scores, k, discounted=metric.discounted)
        values, expected = rows.targets, imputed
    else:
        weights, total = np.ones(len(scores)), float(len(scores))
        values = metric.loss(scores[place], rows.targets)
        expected = None
        if imputed is not None:
            expected = imputed_loss(metric.loss, scores, imputed, labels=labelled)
    mass = float(weights.sum())
    used = weights[place] > 0
    learned = None
    if rows.balance is not None:
        learned = partial(_ratio, rows.balance, used, weights[place][used])
    seen = Observed(
        weight=weights[place][used],
        value=values[used],
        propensity=rows.propensities[used],
        share=metric.loss is None,
        total=mass if candidates.complete else None,
        imputed=None if expected is None else expected[place][used],
        imputed_mean=np.nan if expected is None else float((weights * expected).sum()) / mass,
        learned=learned,
        least=float(rows.propensities.min()),
    )
    return seen, mass / total, rows.unbalanced[used]


def _ratio(balance: Balance, used: Any, weight: Values, deviation: Values) -> float:
    """What learning the propensities does, by the deviations of the rows that count."""
    whole = np.zeros(len(used))
    whole[used] = weight * deviation
    return balance.ratio(whole)


def _check_names(argument: str, given: list[str], known: list[str]) -> None:
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise InputError(
            f"{argument} has {wrong[0]!r}, which is unknown; known are {', '.join(known)}."
            if wrong
            else f"{argument} is empty; known are {', '.join(known)}."
        )


def _check_metric(
    name: str, metric: Metric, candidates: Candidates, rows: Log, *, labelled: bool
) -> None:
    if metric.label and not labelled:
        raise InputError(f"{name} needs labels; give label_threshold, for example 3.")
    if metric.loss is None and not candidates.complete:
        raise InputError(
            f"{name} needs the scores of all candidates of a user; give scores as a table with a "
            "user, an item and a score in each row."
        )
    if metric.probability and labelled:
        _check_range(candidates.scores, f"the scores, for {name},", "metrics=precision")
    if labelled and candidates.imputed is not None:
        _check_range(candidates.imputed, "the imputed values", "probabilities of a positive rating")


def _check_range(values: Values, what: str, remedy: str) -> None:
    wrong = np.flatnonzero((values < 0) | (values > 1))
    if len(wrong):
        raise InputError(
            f"{what} must lie in [0, 1], got {values[wrong[0]]:g} in row {wrong[0] + 1} "
            f"({len(wrong)} rows in all); turn them into probabilities, or try {remedy}."
        )
