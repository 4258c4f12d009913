"""How training went: losses and the selection metric over the steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from upo.figures.intervals import Array, as_floats, finite_mean_sd
from upo.figures.style import LINES, MUTED, colour, lap, new_figure, styled

THIN = 16  # with more replicas than this, single lines would only blacken the band


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """One panel of `curve_panels`.

    ``steps`` is ``[T]``; a series is ``[T]`` or ``[T, R]``, NaN where a replica has stopped;
    ``best`` is the kept step, one for all or ``[R]``.
    """

    steps: ArrayLike
    series: Mapping[str, ArrayLike]
    ylabel: str
    best: ArrayLike | None = None
    title: str = ""
    xlabel: str = "training step"
    log_y: bool = False


def curves(
    steps: ArrayLike,  # [T]
    series: Mapping[str, ArrayLike],  # name to [T] or [T, R]
    *,
    title: str,
    ylabel: str,
    best: ArrayLike | None = None,  # scalar or [R], a value of steps
) -> Figure:
    """One panel of mean lines with a band of one standard deviation over replicas."""
    return curve_panels([CurvePanel(steps, series, ylabel, best)], title=title)


@styled()
def curve_panels(panels: Sequence[CurvePanel], *, title: str) -> Figure:
    """Panels in rows of at most three, each with its own steps and legend.

    A line is the mean over replicas, its band one standard deviation, thin lines the replicas. One
    that has stopped counts with its last value: the mean of those still running would jump. Kept
    steps are triangles on the x axis, one per replica, and a dashed line at their median.

    Raises:
        ValueError: If there is no panel, or a series does not fit its steps.
    """
    if not panels:
        raise ValueError("curve_panels needs at least one panel.")
    columns = next(n for n in (3, 2, 1) if n <= len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(5.6, 3.9 * columns), 3.3 * rows + 0.4, title)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in places[len(panels) :]:
        axes.remove()
    return figure


def _draw_panel(axes: Axes, panel: CurvePanel) -> None:
    steps = as_floats("steps", panel.steps, 1)
    for index, (name, given) in enumerate(panel.series.items()):
        values = as_floats(name, given, 1, 2)
        if len(values) != len(steps):
            raise ValueError(f"{name} needs one row per step ({len(steps)}), got {values.shape}.")
        draw_spread(axes, steps, values.reshape(len(steps), -1), index, name)
    if panel.log_y:
        axes.set_yscale("log")
    if panel.best is not None:
        best = np.atleast_1d(np.asarray(panel.best, dtype=np.float64))
        _mark_best(axes, best[np.isfinite(best)])
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    if len(steps) == 1:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.title:
        axes.set_title(panel.title, color=MUTED)
    labels = axes.get_legend_handles_labels()[1]
    if labels:  # below the panel, where it can hide no curve
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=min(len(labels), 3))


def held(values: Array) -> Array:
    """``values [T, R]`` where a replica that has stopped keeps its last one while others run.

    >>> held(np.array([[3.0, 4.0], [2.0, np.nan], [1.0, np.nan], [np.nan, np.nan]])).tolist()
    [[3.0, 4.0], [2.0, 4.0], [1.0, 4.0], [nan, nan]]
    """
    finite = np.isfinite(values)
    row = np.arange(len(values))[:, None]
    last = np.where(finite, row, -1).max(0)  # [R], -1 for one that never ran
    stopped = (row > last) & (last >= 0) & (row <= last.max(initial=-1))
    return np.where(stopped, values[last, np.arange(values.shape[1])], values)


def draw_spread(axes: Axes, steps: Array, values: Array, index: int, name: str) -> None:
    """Mean, one-sd band and thin lines of ``values [T, R]`` as series number ``index``."""
    mean, sd = finite_mean_sd(held(values), axis=1)
    shade, dash = colour(index), lap(index, LINES)
    marker = "o" if len(steps) <= 30 else ""
    if 1 < values.shape[1] <= THIN:
        axes.plot(steps, values, color=shade, lw=0.6, alpha=0.3)
    if values.shape[1] > 1:
        axes.fill_between(steps, mean - sd, mean + sd, color=shade, alpha=0.18, lw=0)
    axes.plot(steps, mean, color=shade, ls=dash, marker=marker, ms=3, label=name)


def _mark_best(axes: Axes, best: Array) -> None:
    if not len(best):
        return
    axes.plot(
        best,
        np.zeros_like(best),
        "^",
        color=MUTED,
        ms=6,
        alpha=0.7,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )
    name = "kept step" if len(best) == 1 else "kept step (median)"
    axes.axvline(float(np.median(best)), color=MUTED, ls="--", lw=1.1, label=name)
