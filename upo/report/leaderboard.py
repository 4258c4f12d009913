"""Rows of one log in one table: figures, paired differences, calibration, weights and budgets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from upo.core.text import file_name
from upo.errors import InputError
from upo.metrics.names import CATALOGUE, HELD, lower_is_better
from upo.report.gather import DEFAULT_DIAGNOSTICS, DIAGNOSTICS, WITHHELD, short_names, swept
from upo.report.paired import Difference, crossed_bootstrap, holm
from upo.report.ranks import Ranks, mean_ranks, user_blocks
from upo.runs.by_user import read_notes, read_users

BASE = "naive"
LOGS = 3  # boards at least over which rows are ranked
TESTED = ("auc", "ndcg@", "f1@", "log_loss")
OTHERS = (*HELD, f"{CATALOGUE}@", "clip", "clip_share", "effective_sample_size", "seconds_per_seed")
MARKED = (*HELD[:2], "dr_bias", "dr_variance")  # have a best, and no values by user
COST = ("trials", "trial_seeds", "epochs")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Board:
    """The rows of one dataset (and world) under one protocol.

    Attributes:
        name: Fit for a file name.
        title: Dataset, world, protocol.
        metrics: Columns that rows are compared by.
        frame: A line for each row, best first: ``row``, ``seeds``; of each metric ``METRIC``,
            ``METRIC_se`` over seeds, ``METRIC_best``, ``METRIC_tied`` (within one standard error
            of the best); of those kept by user ``METRIC_naive``, the difference to naive, with
            ``_low``, ``_high`` and ``_p`` (Holm), and the same of ``METRIC_top``, the best; then
            calibration, weights, budget and seconds.
        ranks: Mean ranks over blocks of test users, by the first metric; None without users.
        notes: What a reader must know: other budgets, values at an edge of their space.
    """

    name: str
    title: str
    metrics: list[str]
    frame: pd.DataFrame
    ranks: Ranks | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Line:
    """One row: its seeds, and what each test user adds where that was kept."""

    name: str
    runs: pd.DataFrame  # indexed by seed
    users: NDArray[np.int64] | None
    values: dict[str, pd.DataFrame]  # metric -> seeds x users


def boards(frame: pd.DataFrame) -> list[Board]:
    """A board for each dataset, world and protocol of gathered runs.

    Args:
        frame: From `upo.report.gather.gather`.

    Raises:
        InputError: If a file of test users is damaged, or there are no figures to compare.
    """
    frame = frame[frame[DIAGNOSTICS] == DEFAULT_DIAGNOSTICS]
    if frame.empty:
        raise InputError("A leaderboard needs runs with diagnostics=correct; none is there.")
    keys = swept(frame)
    worlds = [key for key in keys if key.startswith("dataset.") or key == WITHHELD]
    parts = frame.groupby(["dataset", "protocol", *worlds], sort=True, dropna=False)
    return [_board(part.dropna(axis=1, how="all"), keys, worlds) for _, part in parts]


def over_logs(found: Sequence[Board]) -> tuple[list[str], Ranks] | None:
    """Mean ranks over boards, each a block, of the rows that all have; None below three boards.

    Boards are ranked by their first metric.
    """
    if len(found) < LOGS:
        return None
    each = [board.frame.set_index("row")[board.metrics[0]].dropna() for board in found]
    rows = [row for row in each[0].index if all(row in column for column in each)]
    if len(rows) < 2:
        return None
    signs = [_sign(board.metrics[0]) for board in found]
    values = [sign * column[rows].to_numpy() for sign, column in zip(signs, each, strict=True)]
    return [str(row) for row in rows], mean_ranks(np.stack(values), lower=True)


def _board(part: pd.DataFrame, keys: Sequence[str], worlds: Sequence[str]) -> Board:
    own = [k for k in keys if k in part and k not in worlds and part[k].astype(str).nunique() > 1]
    world = [
        f"{short}={part[key].iloc[0]}" for key, short in short_names(worlds).items() if key in part
    ]
    title = ", ".join([str(part["dataset"].iloc[0]), *world, str(part["protocol"].iloc[0])])
    metrics = [str(c) for c in part.columns if str(c).startswith(TESTED)] or ["val_log_loss"]
    if metrics[0] not in part:
        raise InputError(f"{title}: no figure to compare rows by; leave these runs out.")
    lines = [
        _line(values, runs, own) for values, runs in part.groupby(["estimator", *own], dropna=False)
    ]
    order = sorted(lines, key=lambda line: _sign(metrics[0]) * float(line.runs[metrics[0]].mean()))
    base = next((line for line in order if line.name == BASE), None)
    rows = [_figures(line, part) for line in order]
    for metric in metrics:
        _compare(order, rows, metric, base)
    for column in MARKED:
        if column in part:
            _mark(order, rows, column)
    found = pd.DataFrame(rows)
    return Board(
        name=file_name(title.replace(", ", "-").translate({32: "_", 61: None})),
        title=title,
        metrics=metrics,
        frame=found,
        ranks=_ranks(order, metrics[0]),
        notes=_notes(found, part),
    )


def _line(values: Any, runs: pd.DataFrame, own: Sequence[str]) -> _Line:
    name, *settings = values
    shorts = short_names(own)
    given = [(shorts[k], v) for k, v in zip(own, settings, strict=True) if str(v) != "nan"]
    name = " ".join([str(name), *(f"{key}={value}" for key, value in given)])
    users: NDArray[np.int64] | None = None
    tables: dict[str, list[pd.DataFrame]] = {}
    for folder, rows in runs.groupby("run"):
        found = read_users(Path(str(folder)))
        if found is None or (users is not None and not np.array_equal(users, found.users)):
            return _Line(name, runs.set_index("seed"), None, {})
        users = found.users
        for metric, table in found.values.items():
            each = pd.DataFrame(table, index=found.seeds)
            tables.setdefault(metric, []).append(each.loc[each.index.isin(rows["seed"])])
    values_by_metric = {metric: pd.concat(parts) for metric, parts in tables.items()}
    return _Line(name, runs.set_index("seed"), users, values_by_metric)


def _figures(line: _Line, part: pd.DataFrame) -> dict[str, Any]:
    """Means over the seeds of what is not compared."""
    row: dict[str, Any] = {"row": line.name, "seeds": len(line.runs)}
    for column in part.columns:
        name = str(column)
        if name in COST or name == "parameters":
            row[name] = int(line.runs[name].max()) if line.runs[name].notna().all() else -1
        elif name.startswith(OTHERS):
            row[name] = float(line.runs[name].mean())
    return row


def _compare(
    lines: Sequence[_Line], rows: Sequence[dict[str, Any]], metric: str, base: _Line | None
) -> None:
    """Add a metric: means, marks, and differences to the base and to the best."""
    best = _mark(lines, rows, metric)
    for other, suffix in ((base, "naive"), (best, "top")):
        if other is None:
            continue
        found = [_difference(line, other, metric) for line in lines]
        adjusted = holm([float("nan") if each is None else each.p for each in found])
        for row, each, p in zip(rows, found, adjusted, strict=True):
            if each is not None:
                name = f"{metric}_{suffix}"
                row |= {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}
                row[f"{name}_p"] = p
                if suffix == "top":
                    row[f"{metric}_tied"] = abs(each.mean) <= each.error


def _mark(lines: Sequence[_Line], rows: Sequence[dict[str, Any]], metric: str) -> _Line | None:
    """Mean, standard error, the best and what is within one standard error of it over seeds."""
    sign = _sign(metric)
    means = [float(line.runs[metric].mean()) for line in lines]
    known = [sign * mean for mean in means if not np.isnan(mean)]
    if not known:
        return None
    best = lines[next(i for i, mean in enumerate(means) if sign * mean == min(known))]
    for line, row, mean in zip(lines, rows, means, strict=True):
        values = line.runs[metric]
        gap = (values - best.runs[metric]).dropna()  # paired by seed
        pool = gap if len(gap) > 1 else values
        error = float(pool.std(ddof=1) / np.sqrt(len(pool))) if len(pool) > 1 else 0.0
        row[metric] = mean
        row[f"{metric}_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
        row[f"{metric}_best"] = line is best
        row[f"{metric}_tied"] = line is best or abs(mean - float(best.runs[metric].mean())) <= error
    return best


def _difference(line: _Line, other: _Line, metric: str) -> Difference | None:
    if line is other or metric not in line.values or metric not in other.values:
        return None
    if not _same_users(line, other):
        return None
    a, b = line.values[metric], other.values[metric]
    seeds = a.index.intersection(b.index)
    gap = a.loc[seeds].to_numpy() - b.loc[seeds].to_numpy()
    return None if not len(seeds) or np.isnan(gap).all() else crossed_bootstrap(gap)


def _same_users(line: _Line, other: _Line) -> bool:
    if line.users is None or other.users is None:
        return False
    return np.array_equal(line.users, other.users)


def _ranks(lines: Sequence[_Line], metric: str) -> Ranks | None:
    """Of all rows, over blocks of the users that every row has."""
    tables = [line.values.get(metric) for line in lines]
    if len(lines) < 2 or any(table is None for table in tables):
        return None
    if not all(_same_users(line, lines[0]) for line in lines):
        return None
    means = np.stack([table.mean(axis=0).to_numpy() for table in tables if table is not None])
    means = means[:, ~np.isnan(means).any(axis=0)]
    if means.shape[1] < 2:
        return None
    return mean_ranks(user_blocks(means), lower=lower_is_better(metric))


def _notes(found: pd.DataFrame, part: pd.DataFrame) -> list[str]:
    notes = []
    if {"trials", "trial_seeds"} <= set(found):
        budgets: dict[str, list[str]] = {}
        for row in found.to_dict("records"):
            cost = f"{row['trials']} x {row['trial_seeds']}"
            budgets.setdefault(cost, []).append(str(row["row"]))
        if len(budgets) > 1:
            said = "; ".join(f"{cost}: {', '.join(rows)}" for cost, rows in budgets.items())
            notes.append(f"Budgets differ, so rows are not to be ranked (trials x seeds): {said}.")
    for estimator, runs in part.groupby("estimator"):
        for folder in dict.fromkeys(runs["run"]):
            notes += [f"{estimator}: {text}" for text in read_notes(Path(str(folder)))]
    return list(dict.fromkeys(notes))


def _sign(metric: str) -> int:
    """1 where a lower value is better."""
    return 1 if lower_is_better(metric) or metric == "val_log_loss" else -1
