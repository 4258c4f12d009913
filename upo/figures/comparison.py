"""Methods side by side: grouped bars for a comparison, lines for a sensitivity study."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import ArrayLike

from upo.figures.intervals import Array, as_floats
from upo.figures.style import (
    HATCHES,
    LINES,
    MARKERS,
    MUTED,
    colour,
    halo,
    lap,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
)

SPREAD = "error bars: one standard deviation"


@styled()
def grouped_bars(
    groups: Sequence[str],  # G, along the x axis, e.g. "p = 0.4"
    rows: Sequence[str],  # K, one colour each, e.g. estimators
    mean: ArrayLike,  # [P, G, K], or [G, K] for one panel; NaN where there is no result
    sd: ArrayLike | None = None,  # of the same shape
    *,
    panels: Sequence[str],  # P, the y labels, e.g. metrics
    title: str = "",
    log: bool | Sequence[bool] = False,  # log y axis, for all panels or each
    highlight: str | None = None,  # the row drawn with a dark rim
) -> Figure:
    """Bars of ``mean`` with error bars ``sd``, grouped, in one panel per metric.

    A missing result leaves a cross on the axis. A log axis with nothing positive to show stays
    linear.

    Raises:
        ValueError: If the shapes do not fit.
    """
    shape = (len(panels), len(groups), len(rows))
    value = _in_shape("mean", mean, shape)
    error = np.zeros(shape) if sd is None else np.nan_to_num(_in_shape("sd", sd, shape))
    logs = [log] * shape[0] if isinstance(log, bool) else list(log)
    if len(logs) != shape[0]:
        raise ValueError(f"log needs one flag per panel ({shape[0]}), got {len(logs)}.")
    wide = float(np.clip(1.2 + 0.1 * shape[1] * (shape[2] + 1), 3.2, 10.0))
    figure, grid = _panel_grid(shape[0], wide, 2.6, title)
    for p, axes in enumerate(grid):
        axis_log = logs[p] and bool((np.isfinite(value[p]) & (value[p] > 0)).any())
        if axis_log:
            axes.set_yscale("log")
        _draw_bars(axes, rows, value[p], error[p], highlight, log=axis_log)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(panels[p] + (" (log)" if axis_log else ""))
    legend_below(
        figure,
        grid[0],
        columns=max(3, int(figure.get_figwidth() / 1.3)),
        note=SPREAD if error.any() else None,
    )
    return figure


@styled()
def line_panels(
    x: ArrayLike,  # [X], increasing
    series: Mapping[str, tuple[ArrayLike, ArrayLike | None]],  # name to mean, sd [P, X] or [X]
    panels: Sequence[str],  # P, the y labels
    *,
    xlabel: str,
    title: str = "",
    log_x: bool = False,
    mark: float | None = None,  # the value in use, drawn as a dashed line
) -> Figure:
    """Mean lines with bars of one standard deviation against ``x``, in one panel per metric.

    On a log axis a first ``x`` of 0 ("switched off") is drawn one step left of the next value and
    labelled 0.

    Raises:
        ValueError: If the shapes do not fit, or x does not increase, or is negative on a log axis.
    """
    at = as_floats("x", x, 1)
    if not len(at) or (np.diff(at) <= 0).any() or (log_x and at[0] < 0):
        raise ValueError(f"line_panels needs increasing x, from 0 up on a log axis, got {at}.")
    shape = (len(panels), len(at))
    place = _log_place(at) if log_x else at
    figure, grid = _panel_grid(shape[0], 3.6, 2.7, title)
    for index, (name, (mean, sd)) in enumerate(series.items()):
        value = _in_shape(name, mean, shape)
        error = np.zeros(shape) if sd is None else np.nan_to_num(_in_shape(name, sd, shape))
        for p, axes in enumerate(grid):
            axes.errorbar(
                place,
                value[p],
                yerr=error[p] if error.any() else None,
                color=colour(index),
                ls=lap(index, LINES),
                marker=MARKERS[index % len(MARKERS)],
                elinewidth=1,
                capsize=2,
                label=name,
            )
    for axes, ylabel in zip(grid, panels, strict=True):
        if log_x:
            axes.set_xscale("log")
            _tick_values(axes, at, place)
        if mark is not None:
            where = float(place[0]) if log_x and mark == 0 else mark
            axes.axvline(where, color=MUTED, ls="--", lw=1.1, label=f"in use: {mark:g}", zorder=1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    legend_below(
        figure,
        grid[0],
        columns=max(3, int(figure.get_figwidth() / 1.3)),
        note=SPREAD if any(sd is not None for _, sd in series.values()) else None,
    )
    return figure


def _in_shape(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if shape[0] == 1 and array.shape == shape[1:]:
        array = array[None]
    if array.shape != shape:
        raise ValueError(f"{name} needs the shape {shape}, got {array.shape}.")
    return array


def _panel_grid(count: int, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, at most twelve inches wide; four are set two by two."""
    if count < 1:
        raise ValueError("A figure needs at least one panel.")
    fit = max(1, int(12 / width))
    columns = min(count, fit, 2 if count == 4 else 3)
    lines = -(-count // columns)
    figure = new_figure(max(4.8, width * columns), height * lines + 0.8, title)
    every = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in every[count:]:
        spare.remove()
    return figure, every[:count]


def _draw_bars(
    axes: Axes, rows: Sequence[str], value: Array, error: Array, highlight: str | None, *, log: bool
) -> None:
    """Bars ``value [G, K]``; on a log axis error bars stop at the axis and zeros are missing."""
    shown = np.isfinite(value) & ((value > 0) | (not log))
    width = 0.84 / len(rows)
    base = value[shown].min() / 3 if log else 0.0
    for k, name in enumerate(rows):
        at = np.arange(len(value)) + (k - (len(rows) - 1) / 2) * width
        ok = shown[:, k]
        down = np.minimum(error[ok, k], value[ok, k] - base) if log else error[ok, k]
        axes.bar(
            at[ok],
            value[ok, k] - base,
            width * 0.94,
            bottom=base,
            color=colour(k),
            hatch=lap(k, HATCHES),
            ec="#202124" if name == highlight else "white",
            lw=1.4 if name == highlight else 0.4,
            zorder=3 if name == highlight else 2,
            label=name,
        )
        if error.any():
            bars = axes.errorbar(
                at[ok],
                value[ok, k],
                yerr=[down, error[ok, k]],
                fmt="none",
                ecolor="#3C4043",
                elinewidth=0.9,
                capsize=1.6,
                zorder=4,
            )
            for part in bars.get_children():
                part.set_path_effects(halo(2.2))
        axes.plot(
            at[~ok],
            np.full((~ok).sum(), 0.03),
            "x",
            color=MUTED,
            ms=4,
            transform=axes.get_xaxis_transform(),
        )
    if log:
        axes.set_ylim(base, float((value + error)[shown].max()) * 1.5)
        plain_log_ticks(axes, "y")
    axes.set_xlim(-0.55, len(value) - 0.45)


def _log_place(x: Array) -> Array:
    """``x`` with a leading 0 moved one log step left of the first positive value."""
    if x[0] > 0:
        return x
    place = x.copy()
    place[0] = 0.1 if len(x) == 1 else x[1] ** 2 / x[2] if len(x) > 2 else x[1] / 10
    return place


def _tick_values(axes: Axes, x: Array, place: Array) -> None:
    """Tick a log axis at the values tried, every second or third if there are many."""
    every = slice(None, None, -(-len(x) // 8))
    axes.xaxis.set_major_locator(FixedLocator(place[every].tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:g}" for value in x[every]])
