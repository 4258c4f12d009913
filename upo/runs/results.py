"""What a run leaves behind: a row for each seed, a summary, and the table that is printed."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from upo.core.files import write_atomically
from upo.metrics.names import COMPAT, CONSTANT, WORTH, lower_is_better

Row = dict[str, Any]

FIXED = ("dataset", "estimator", "protocol", "seed")
LAST = ("best_epoch", "parameters", "train_seconds")
# its clip, the search that its values come from, the epochs of all stages
BUDGET = ("clip", "trials", "trial_seeds", "epochs")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; columns are those of the first row."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue())


def metric_names(row: Row) -> list[str]:
    """Columns of a row that are measured values."""
    return [name for name in row if name not in (*FIXED, *LAST, *BUDGET)]


def seed_failed(row: Row) -> bool:
    """Whether nothing was measured: the replica of this seed diverged.

    >>> seed_failed({"auc": math.nan}), seed_failed({"auc": 0.6, "ece": math.nan})
    (True, False)
    """
    return all(math.isnan(float(row[name])) for name in metric_names(row))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and half-width of the 95 % t interval of the mean.

    With one value, or where a value is missing, the spread is NaN.

    >>> spread([1.0, 3.0])["mean"]
    2.0
    """
    both = {math.inf, -math.inf} <= set(values)  # whose sum is nothing
    mean = math.nan if both else fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return {"mean": mean, "sd": math.nan, "ci95": math.nan}
    sd = stdev(values)
    factor = float(stdtrit(len(values) - 1, 0.975))
    return {"mean": mean, "sd": sd, "ci95": factor * sd / math.sqrt(len(values))}


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Spread of every measured value over the seeds that did not fail."""
    kept = [row for row in rows if not seed_failed(row)] or rows
    return {name: spread([float(row[name]) for row in kept]) for name in metric_names(rows[0])}


def write_summary(path: Path, rows: Sequence[Row], extra: Mapping[str, Any]) -> None:
    """Write the summary of a run as JSON; a missing value is null."""
    first = rows[0]
    summary = {
        **{key: first[key] for key in ("dataset", "estimator", "protocol")},
        "seeds": [row["seed"] for row in rows],
        "parameters": first["parameters"],
        "train_seconds": first["train_seconds"],
        "metrics": summarize(rows),
        **extra,
    }
    write_atomically(path, json.dumps(_no_nan(summary), indent=2) + "\n")


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: Sequence[Row], *, title: str, remarks: Sequence[str] = ()) -> str:
    """Mean, sd and 95 % interval of every value over the seeds, as aligned text.

    Args:
        rows: A row for each seed.
        title: The first line.
        remarks: Sentences of `upo.runs.remarks`, the last lines.
    """
    head = f"{'metric':<22}{'mean':>12}{'sd':>12}{'95 % interval of the mean':>30}{'constant':>12}"
    lines = [title, head]
    last: list[str] = []
    summary = summarize(rows)
    for full, value in summary.items():
        if full in CONSTANT.values():
            continue  # stands beside its metric
        name = full.removesuffix(COMPAT)
        mean, half = value["mean"], value["ci95"]
        if math.isnan(half):
            interval = "one seed" if len(rows) == 1 else "-"
        else:
            interval = f"{mean - half:.5g} .. {mean + half:.5g}"
        sd = "-" if math.isnan(value["sd"]) else f"{value['sd']:.3g}"
        where = lines if name == full else last  # definitions are not mixed in one table
        known = CONSTANT.get(full)
        beside = summary[known]["mean"] if isinstance(known, str) else known
        constant = "" if beside is None else f"{beside:>12.5g}"
        where.append(f"{name:<22}{mean:>12.5g}{sd:>12}{interval:>30}{constant}")
    if last:
        lines += ["", "Diagnostics as published code scores them (table1_compat)", head, *last]
    first, lost = rows[0], [row["seed"] for row in rows if seed_failed(row)]
    if lost:
        lines.append(
            f"{len(lost)} of {len(rows)} seeds failed, and nothing here is of them: "
            f"{', '.join(map(str, lost))}"
        )
    lines.append(
        f"{len(rows)} seeds, {first['parameters']:,} parameters each, "
        f"{first['train_seconds']:.1f} s of training in all"
    )
    return "\n".join(lines + [f"Warning: {text}" for text in remarks])


def side_by_side(runs: Sequence[Sequence[Row]]) -> str:
    """Means of several runs beside each other; a star marks the best of each line."""
    names = [str(rows[0]["estimator"]) for rows in runs]
    lines = [f"{'metric':<22}" + "".join(f"{name:>24}" for name in names)]
    summaries = [summarize(rows) for rows in runs]
    for metric in summaries[0]:
        values = [summary.get(metric, {"mean": math.nan, "sd": math.nan}) for summary in summaries]
        means = [value["mean"] for value in values]
        known = [mean for mean in means if not math.isnan(mean)]
        better = min if lower_is_better(metric) else max
        best = math.nan if metric in WORTH else better(known, default=math.nan)
        cells = (
            f"{value['mean']:.5g} +- {value['sd']:.2g}{'*' if value['mean'] == best else ' '}"
            for value in values
        )
        lines.append(f"{metric:<22}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
