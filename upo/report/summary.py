"""Tables of many runs: one for each dataset, protocol and definition of the diagnostics."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from upo.core.text import file_name
from upo.errors import visible
from upo.metrics.names import DIAGNOSED, WORTH, lower_is_better
from upo.report.gather import DIAGNOSTICS, GROUP, WORLD, short_names, swept
from upo.report.table import published
from upo.runs.results import BUDGET, FIXED, LAST, spread

COSTS = {
    "seconds_per_seed": "s / seed",
    "parameters": "parameters",
    "clip": "clip",
    "clip_share": "at clip",
    "effective_sample_size": "ESS",
    "trials": "trials",
    "trial_seeds": "seeds of each",
    "epochs": "epochs",
}
PLAIN = {*FIXED, *LAST, *WORTH, *BUDGET, DIAGNOSTICS, "run", "seconds_per_seed"}
COMPAT = "table1_compat"  # the definitions behind the paper's Table 1


@dataclass(frozen=True)
class Summary:
    """One table, as numbers.

    Attributes:
        name: Fit for a file name.
        title: Dataset, protocol and definition; says when the test set selected.
        keys: Columns that name a row: the estimator and what was swept.
        metrics: Measured columns, in order.
        frame: A row for each estimator and setting: ``keys``, ``seeds``, and for each metric
            ``METRIC`` (mean), ``METRIC_sd``, ``METRIC_low``, ``METRIC_high`` (95 % t interval of
            the mean), ``METRIC_best`` (bool,
            among the rows of one world) and, where published, ``METRIC_paper``; then the
            costs, with the paper's.
    """

    name: str
    title: str
    keys: list[str]
    metrics: list[str]
    frame: pd.DataFrame


def tables(frame: pd.DataFrame) -> list[Summary]:
    """Summaries of gathered runs, protocols and definitions of the diagnostics kept apart.

    Args:
        frame: From `upo.report.gather.gather`.
    """
    return [_summary(part.dropna(axis=1, how="all")) for _, part in frame.groupby(GROUP, sort=True)]


def measured(frame: pd.DataFrame) -> list[str]:
    """Columns with measured values, ranking first, the four diagnostics last."""
    names = [str(c) for c in frame.columns if c not in PLAIN and "." not in str(c)]
    return [n for n in names if n not in DIAGNOSED] + [n for n in DIAGNOSED if n in names]


def _summary(part: pd.DataFrame) -> Summary:
    dataset, protocol, definition = (str(part[column].iloc[0]) for column in GROUP)
    settings = [k for k in swept(part) if k == WORLD or part[k].astype(str).nunique() > 1]
    keys, metrics = ["estimator", *settings], measured(part)
    rows = []
    for values, runs in part.groupby(keys, sort=True, dropna=False):
        row = dict(zip(keys, values, strict=True)) | {"seeds": len(runs)}
        for metric in metrics:
            value = spread(runs[metric].tolist())
            row[metric], row[f"{metric}_sd"] = value["mean"], value["sd"]
            row[f"{metric}_low"] = value["mean"] - value["ci95"]
            row[f"{metric}_high"] = value["mean"] + value["ci95"]
        row |= {cost: runs[cost].mean() for cost in COSTS if cost in runs}
        rows.append(row)
    table = pd.DataFrame(rows)
    worlds = [key for key in settings if key.startswith("dataset.")]  # rows of one compare
    for metric in metrics:
        sign = -1 if lower_is_better(metric) else 1
        world = table[worlds].astype(str).agg(" ".join, axis=1) if worlds else [""] * len(table)
        table[f"{metric}_best"] = table[metric] * sign == (table[metric] * sign).groupby(
            world
        ).transform("max")
    _add_published(table, dataset, definition, settings, metrics)
    parts = [dataset, protocol, *([] if definition == "correct" else [definition])]
    return Summary(
        name=file_name("-".join(p.replace(" ", "_").strip("()") for p in parts).replace("(", "")),
        title=visible(f"{dataset}, {protocol}, diagnostics: {definition}", 200),
        keys=keys,
        metrics=metrics,
        frame=table,
    )


def _add_published(
    table: pd.DataFrame,
    dataset: str,
    definition: str,
    settings: Sequence[str],
    metrics: Sequence[str],
) -> None:
    """Set the paper's figures beside: Table 2 (ranking), 1 (compatible diagnostics), 3 (costs)."""
    columns: dict[str, list[float | None]] = {}
    ranking = published(dataset)
    for metric in metrics:
        known = [ranking.get(e, {}).get(metric.split("@")[0]) for e in table["estimator"]]
        columns[f"{metric}_paper"] = [cell[0] if cell else None for cell in known]
    if definition == COMPAT:
        share = next((key for key in settings if key.endswith(".p")), None)
        shares = ["" if share is None else str(p) for p in table[share or "estimator"]]
        first = _more("published_diagnostics.csv", ("dataset", "p", "estimator"))
        for metric in DIAGNOSED:
            columns[f"{metric}_paper"] = [
                first.get((dataset, p, e), {}).get(metric)
                for p, e in zip(shares, table["estimator"], strict=True)
            ]
    third = _more("published_costs.csv", ("dataset", "estimator"))
    for cost in COSTS:
        columns[f"{cost}_paper"] = [
            third.get((dataset, e), {}).get(cost) for e in table["estimator"]
        ]
    for name, values in columns.items():
        if any(value is not None for value in values):
            table[name] = pd.Series(values, dtype="float64")


def _more(file: str, keys: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, float]]:
    text = files("upo.report").joinpath(file).read_text(encoding="utf-8")
    return {
        tuple(row[key] for key in keys): {k: float(v) for k, v in row.items() if k not in keys}
        for row in csv.DictReader(text.splitlines())
    }


def labels(summary: Summary) -> dict[str, str]:
    """What the key columns are called in print."""
    return short_names(summary.keys[1:]) | {"estimator": "estimator"}
