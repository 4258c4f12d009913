"""Figures of many runs: the paper's Figures 1 to 3, any other sweep, and all methods at a glance.

Each function takes gathered runs (`upo.report.gather.gather`) and a path, and writes PNG and PDF
beside each other, whatever the path's suffix.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from upo import figures
from upo.core.files import atomic_file
from upo.core.text import file_name
from upo.errors import InputError, visible
from upo.figures.estimates import interval_dots
from upo.figures.style import styled
from upo.metrics.names import DIAGNOSED
from upo.report.gather import GROUP, short_names, swept
from upo.report.summary import measured, tables

NAMES = {"ece": "ECE", "bmse": "BMSE", "dr_bias": "DR bias", "dr_variance": "DR variance"}
LOG_RATIO = 20  # a swept setting that spans more than this goes on a log axis
MOST_BARS = 8  # colours of the palette


def figure1(frame: pd.DataFrame, path: str | Path, *, key: str = "dataset.p") -> list[Path]:
    """The four diagnostics by p, grouped bars (Figure 1 of the UPO paper).

    Raises:
        InputError: If the runs differ in dataset, protocol or definition, or lack the setting.
    """
    title = _one_group(frame)
    rows = list(dict.fromkeys(frame["estimator"]))
    settings = _settings(frame, key)
    names = [name for name in DIAGNOSED if name in frame]
    mean, sd = (
        [
            [[_stat(frame, key, p, row, name, what) for row in rows] for p in settings]
            for name in names
        ]
        for what in ("mean", "std")
    )
    short = short_names([key])[key]
    figure = figures.grouped_bars(
        [f"{short} = {p:g}" for p in settings],
        rows,
        mean,
        sd,
        panels=[NAMES[name] for name in names],
        title=title,
        log=[_spans(values) for values in mean],
    )
    return save(figure, path)


def figure2(frame: pd.DataFrame, path: str | Path, *, key: str | None = None) -> list[Path]:
    """NDCG and F1 against beta (Figure 2 of the UPO paper).

    Raises:
        InputError: If the runs differ in dataset, protocol or definition, or lack the setting.
    """
    ranked = [name for name in measured(frame) if name.startswith(("ndcg@", "f1@"))]
    return sweep(frame, path, key=key or _key_named(frame, "beta"), metrics=ranked)


def figure3(frame: pd.DataFrame, path: str | Path, *, key: str | None = None) -> list[Path]:
    """The four diagnostics and AUC against the number of bins (Figure 3 of the UPO paper).

    Runs on several datasets give a figure each, the dataset's name added to the path.

    Raises:
        InputError: If the runs differ in protocol or definition, or lack the setting.
    """
    written = []
    datasets = list(dict.fromkeys(frame["dataset"]))
    for dataset in datasets:
        part = frame[frame["dataset"] == dataset]
        target = Path(path)
        if len(datasets) > 1:
            target = target.with_name(f"{target.stem}-{dataset}{target.suffix}")
        names = [name for name in (*DIAGNOSED, "auc") if name in part]
        written += sweep(part, target, key=key or _key_named(part, "num_bins"), metrics=names)
    return written


def sweep(frame: pd.DataFrame, path: str | Path, *, key: str, metrics: Sequence[str]) -> list[Path]:
    """Metrics against a swept setting, a line for each estimator.

    Raises:
        InputError: If the runs differ in dataset, protocol or definition, or lack the setting.
    """
    title = _one_group(frame)
    at = _settings(frame, key)
    series = {}
    for row in dict.fromkeys(frame["estimator"]):
        mean, sd = (
            np.array([[_stat(frame, key, x, row, name, what) for x in at] for name in metrics])
            for what in ("mean", "std")
        )
        series[str(row)] = (mean, sd if np.nan_to_num(sd).any() else None)
    positive = [x for x in at if x > 0]
    figure = figures.line_panels(
        at,
        series,
        [NAMES.get(name, name) for name in metrics],
        xlabel=short_names([key])[key],
        title=title,
        log_x=len(positive) > 2 and positive[-1] / positive[0] > LOG_RATIO and at[0] >= 0,
    )
    return save(figure, path)


def overview(frame: pd.DataFrame, path: str | Path, metrics: Sequence[str]) -> list[Path]:
    """Every estimator's mean with its 95 % interval, and the paper's figure, best first.

    Raises:
        InputError: If the runs differ in dataset, protocol or definition.
    """
    title = _one_group(frame)
    table = tables(frame)[0].frame.sort_values(metrics[0], ascending=False)
    papers = [table.get(f"{m}_paper", pd.Series(np.nan, table.index)).tolist() for m in metrics]
    figure = interval_dots(
        table["estimator"].tolist(),
        [table[m].tolist() for m in metrics],
        [(table[f"{m}_high"] - table[m]).tolist() for m in metrics],
        papers,
        panels=[NAMES.get(m, m) for m in metrics],
        title=title,
    )
    return save(figure, path)


def every_figure(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """The figures that the runs have data for."""
    written: list[Path] = []
    finite = {name: frame[name].replace([np.inf, -np.inf], np.nan) for name in measured(frame)}
    names = [visible(name, 60).replace("$", r"\$") for name in frame["estimator"]]
    frame = frame.assign(**finite, estimator=names)
    for summary, (_, part) in zip(tables(frame), frame.groupby(GROUP, sort=True), strict=True):
        settings = summary.keys[1:]
        metrics = [name for name in summary.metrics if part[name].notna().any()]
        for key in (k for k in settings if _numeric(part, k)):
            stem = folder / f"{summary.name}-{file_name(short_names(settings)[key])}"
            alone = _others_fixed(part, key, settings)
            bars = key.startswith("dataset.") and set(DIAGNOSED) <= set(metrics)
            if bars and alone["estimator"].nunique() > 1:
                written += figure1(alone, stem, key=key)
            elif alone["estimator"].nunique() <= MOST_BARS:
                shown = [
                    m for m in metrics if m in DIAGNOSED or m.startswith(("auc", "ndcg", "f1"))
                ]
                written += sweep(alone, stem, key=key, metrics=shown)
        ranked = [m for m in metrics if m.startswith(("auc", "ndcg@", "f1@"))]
        if not settings and ranked and part["estimator"].nunique() > 1:
            written += overview(part, folder / summary.name, ranked)
    return written


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write PNG and PDF; the same figure gives the same bytes."""
    stem = Path(path)
    if stem.suffix in (".png", ".pdf"):
        stem = stem.with_suffix("")
    png, pdf = (stem.with_name(stem.name + end) for end in (".png", ".pdf"))
    figures.save(figure, png)
    with styled(), atomic_file(pdf) as file:
        figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    return [png, pdf]


def _one_group(frame: pd.DataFrame) -> str:
    """The heading of runs that may stand in one figure."""
    mixed = {c: sorted(set(frame[c])) for c in GROUP if frame[c].nunique() > 1}
    if mixed or frame.empty:
        raise InputError(
            f"A figure needs runs of one dataset, protocol and definition of the diagnostics, got "
            f"{mixed or 'none'}; choose some of the rows."
        )
    dataset, protocol, definition = (str(frame[c].iloc[0]) for c in GROUP)
    return f"{dataset}, {protocol}" + ("" if definition == "correct" else f", {definition}")


def _key_named(frame: pd.DataFrame, name: str) -> str:
    keys = [key for key in swept(frame) if key.endswith(f".{name}") and frame[key].nunique() > 1]
    if len(keys) != 1:
        raise InputError(
            f"The runs differ in {', '.join(swept(frame)) or 'no setting'}; this figure needs one "
            f"setting that ends in .{name}, so name it as key=."
        )
    return keys[0]


def _settings(frame: pd.DataFrame, key: str) -> list[float]:
    if key not in frame or not _numeric(frame, key):
        raise InputError(
            f"The runs have no numbers under {key}; settings that differ between them are "
            f"{', '.join(swept(frame)) or 'none'}."
        )
    return sorted({float(value) for value in frame[key].dropna()})


def _numeric(frame: pd.DataFrame, key: str) -> bool:
    values = frame[key].dropna()
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and values.nunique() > 1


def _others_fixed(frame: pd.DataFrame, key: str, settings: Sequence[str]) -> pd.DataFrame:
    """Runs at the most frequent value of every other setting, so that one thing changes."""
    for other in settings:
        if other != key:
            text = frame[other].astype(str)
            frame = frame[text == text.mode().iloc[0]]
    return frame


def _stat(
    frame: pd.DataFrame, key: str, setting: float, estimator: str, name: str, what: str
) -> float:
    match = (frame["estimator"] == estimator) & (frame[key].astype(float) == setting)
    return float(getattr(frame.loc[match, name], what)())


def _spans(values: Sequence[Sequence[float]]) -> bool:
    """Whether the bars of a panel need a log axis."""
    positive = [v for row in values for v in row if v > 0]
    return bool(positive) and max(positive) / min(positive) > LOG_RATIO
