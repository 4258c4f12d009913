"""Are the propensities calibrated: the predicted against the observed rate, bin by bin."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from upo.figures.intervals import Array, as_floats, plus_minus, pooled, wilson
from upo.figures.style import (
    BLUE,
    MUTED,
    SKY,
    legend_below,
    new_figure,
    plain,
    plain_log_ticks,
    styled,
)

Scale = Literal["linear", "log", "sqrt"]
TINY = 0.1  # below this mean propensity a linear axis squeezes all bins into a corner
ROOT_TICKS = np.array([0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])


def axis_scale(mean_p_hat: Array, mean_observed: Array, count: Array) -> Scale:
    """Linear unless the mean propensity of all pairs is below 0.1; then log, or sqrt beside zeros.

    All arguments are ``[M]``. A log axis cannot show a bin in which nothing was observed.

    >>> one = np.ones(2)
    >>> axis_scale(np.array([0.2, 0.4]), np.array([0.1, 0.5]), one)
    'linear'
    >>> axis_scale(np.array([0.01, 0.04]), np.array([0.02, 0.03]), one)
    'log'
    >>> axis_scale(np.array([0.01, 0.04]), np.array([0.0, 0.03]), one)
    'sqrt'
    """
    full = count > 0
    if not full.any() or np.average(mean_p_hat[full], weights=count[full]) >= TINY:
        return "linear"
    return "log" if (np.minimum(mean_p_hat, mean_observed)[full] > 0).all() else "sqrt"


@styled()
def reliability_diagram(
    bin_low: ArrayLike,  # [M] or [R, M], lower edges
    bin_high: ArrayLike,  # [M] or [R, M], upper edges
    mean_p_hat: ArrayLike,  # [M] or [R, M], NaN where empty
    mean_observed: ArrayLike,  # [M] or [R, M], NaN where empty
    count: ArrayLike,  # [M] or [R, M], pairs in each bin
    *,
    title: str,
    ece: ArrayLike | None = None,  # scalar or [R]
) -> Figure:
    """Predicted propensity against observed rate per bin, with the number of pairs below.

    A large point is a bin over all replicas, weighted by their counts; small points are the
    replicas. Its bar is the 95 % Wilson interval of one replica (at the mean count): replicas score
    the same pairs, so adding their counts would claim evidence that is not there. The axes follow
    `axis_scale`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    p_hat, rate, n = (
        np.atleast_2d(as_floats(name, values, 1, 2))
        for name, values in [
            ("mean_p_hat", mean_p_hat),
            ("mean_observed", mean_observed),
            ("count", count),
        ]
    )
    if not p_hat.shape == rate.shape == n.shape:
        raise ValueError(
            "reliability_diagram needs mean_p_hat, mean_observed and count of one shape, "
            f"got {p_hat.shape}, {rate.shape} and {n.shape}."
        )
    low, high = (
        np.atleast_2d(as_floats(name, edge, 1, 2)).mean(0)
        for name, edge in [("bin_low", bin_low), ("bin_high", bin_high)]
    )
    if not low.shape == high.shape == p_hat.shape[1:]:
        raise ValueError(
            f"reliability_diagram needs edges of {p_hat.shape[1]} bins, "
            f"got {low.shape[0]} lower and {high.shape[0]} upper ones."
        )
    n = np.where(np.isfinite(p_hat) & np.isfinite(rate), n, 0.0)
    x, y, mean_count = pooled(p_hat, n), pooled(rate, n), n.mean(0)
    scale = axis_scale(x, y, mean_count)

    figure = new_figure(5.2, 5.9, title)
    panel, strip = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 1])
    _set_scale(panel, scale, x[mean_count > 0], y[mean_count > 0])
    ends = panel.get_xlim()  # those of the y axis too, so this is the diagonal
    panel.plot(ends, ends, color=MUTED, lw=1, ls="--", label="perfect calibration")
    if len(p_hat) > 1:
        panel.scatter(p_hat[n > 0], rate[n > 0], s=12, c=SKY, alpha=0.8, lw=0, label="one replica")
    below, above = wilson(y, mean_count)
    panel.errorbar(
        x,
        y,
        yerr=np.nan_to_num([np.maximum(y - below, 0), np.maximum(above - y, 0)]),
        fmt="o",
        ms=6,
        color=BLUE,
        mec="white",
        elinewidth=1.5,
        capsize=2.5,
        label="bin, 95 % Wilson interval",
    )
    _say_sides(panel)
    panel.set_ylabel("observed rate (mean of $o$)")
    facts = [] if ece is None else [f"ECE {plus_minus(ece, '.4f')}"]
    facts += [f"{mean_count.sum():,.0f} pairs"]
    facts += [f"{len(p_hat)} replicas"] if len(p_hat) > 1 else []
    panel.set_title(" · ".join(facts), color=MUTED)

    _draw_counts(strip, low, high, mean_count)
    strip.set_xlabel(
        r"predicted propensity $\hat{p}$" + ("" if scale == "linear" else f" ({scale} axes)")
    )
    legend_below(figure, panel)
    return figure


def _set_scale(panel: Axes, scale: Scale, x: Array, y: Array) -> None:
    """The same scale, limits and ticks on both axes (the x axis is shared with the strip)."""
    points = np.concatenate([x, y])
    if scale == "log":
        low, high = points.min() / 1.6, min(1.1, points.max() * 1.6)
        widen = max(1.0, np.sqrt(10 * low / high))  # at least a decade, or the ticks crowd
        low, high = float(low / widen), float(high * widen)
        panel.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        plain_log_ticks(panel, "x")
        plain_log_ticks(panel, "y")
        return
    top = min(1.0, float(points.max()) * 1.15) if len(points) and points.max() > 0 else 1.0
    low, high = -0.02 * top, 1.02 * top  # points on 0 and 1 are drawn whole
    if scale == "sqrt":
        low = -5e-4 * top
        root = (lambda v: np.sign(v) * np.sqrt(np.abs(v)), lambda v: np.sign(v) * np.square(v))
        panel.set_xscale("function", functions=root)
        panel.set_yscale("function", functions=root)
        ticks = ROOT_TICKS[(top / 150 < ROOT_TICKS) & (top >= ROOT_TICKS) | (ROOT_TICKS == 0)]
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(FixedLocator(ticks.tolist()))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(plain))
    panel.set(xlim=(low, high), ylim=(low, high))


def _say_sides(panel: Axes) -> None:
    for x, y, side, text in [
        (0.02, 0.97, "left", "propensity too low"),
        (0.98, 0.03, "right", "propensity too high"),
    ]:
        panel.text(
            x,
            y,
            text,
            transform=panel.transAxes,
            ha=side,
            va="top" if y > 0.5 else "bottom",
            color=MUTED,
            size=8.5,
            style="italic",
        )


def _draw_counts(strip: Axes, low: Array, high: Array, count: Array) -> None:
    """Pairs per bin as bars over the bins; a log axis once they span two decades."""
    full = count > 0
    left = np.maximum(low, strip.get_xlim()[0])
    right = np.minimum(np.maximum(high, left), strip.get_xlim()[1])
    shown = full & (right > left)
    strip.bar(
        left[shown],
        count[shown],
        width=(right - left)[shown],
        align="edge",
        color=SKY,
        ec="white",
        lw=0.6,
    )
    if full.any() and count[full].max() > 100 * count[full].min():
        strip.set_yscale("log")
        strip.set_ylim(count[full].min() / 2, count[full].max() * 2)
    strip.yaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1M
    strip.set_ylabel("pairs")
