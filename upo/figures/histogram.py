"""Where the propensities lie, and what inverse weighting with them leaves of the sample."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from upo.figures.intervals import Array, as_floats, finite_mean_sd, plus_minus
from upo.figures.style import (
    BLUE,
    MUTED,
    VERMILLION,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
)


def share_below(counts: Array, edges: Array, threshold: float) -> Array:
    """Share of each row of ``counts [R, K]`` below ``threshold``; NaN for an empty row.

    The bin that holds the threshold is split in proportion on the log axis, so the share is exact
    when the threshold is one of the (positive) ``edges [K + 1]``.

    >>> share_below(np.array([[1.0, 1.0, 2.0]]), np.array([0.01, 0.1, 0.2, 0.4]), 0.2).tolist()
    [0.5]
    """
    ends = np.log(edges)
    inside = np.clip((np.log(threshold) - ends[:-1]) / np.diff(ends), 0.0, 1.0)
    total = counts.sum(1)
    return np.where(total > 0, counts @ inside / np.where(total > 0, total, 1.0), np.nan)


@styled()
def propensity_histogram(
    counts_all: ArrayLike,  # [K] or [R, K], pairs of the whole user-item space
    counts_observed: ArrayLike,  # [K] or [R, K], observed pairs
    edges: ArrayLike,  # [K + 1], increasing; a first edge of 0 is drawn one bin to the left
    *,
    clip: float | None = None,
    effective_sample_size: ArrayLike,  # scalar or [R]
    n_observed: float,
    title: str,
) -> Figure:
    """Propensities of all pairs and of the observed ones, each as shares that sum to one.

    A bin that is narrower or wider than most, as one that is cut at the clip, is drawn as high as
    one of their width would be, so that a cut makes no notch.

    With several replicas the mean share is drawn, and a band of one standard deviation. Left of
    ``clip`` the propensities are replaced by it; the share of pairs this touches is printed (see
    `share_below`), and so is the effective sample size (sum w)^2 / sum w^2 of the weights 1/p.

    Raises:
        ValueError: If the shapes do not fit, the edges do not increase, or clip is outside (0, 1].
    """
    every = np.atleast_2d(as_floats("counts_all", counts_all, 1, 2))
    seen = np.atleast_2d(as_floats("counts_observed", counts_observed, 1, 2))
    cut = as_floats("edges", edges, 1).copy()
    if every.shape != seen.shape or every.shape[1] != len(cut) - 1:
        raise ValueError(
            "propensity_histogram needs two counts of one shape and one edge more than bins, "
            f"got {every.shape}, {seen.shape} and {len(cut)} edges."
        )
    if cut[0] < 0 or (np.diff(cut) <= 0).any():
        raise ValueError("propensity_histogram needs edges that are not negative and increase.")
    if clip is not None and not 0 < clip <= 1:
        raise ValueError(f"clip must lie in (0, 1], got {clip}.")
    if cut[0] == 0:
        cut[0] = cut[1] ** 2 / cut[2] if len(cut) > 2 else cut[1] / 10

    figure = new_figure(6.4, 4.1, title)
    axes = figure.subplots()
    axes.set_xscale("log")
    for counts, colour, name in [
        (every, MUTED, "all user-item pairs"),
        (seen, BLUE, "observed pairs"),
    ]:
        _draw_shares(axes, counts, cut, colour, name)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    used = np.flatnonzero((every + seen).sum(0))
    first, last = (used[0], used[-1] + 1) if len(used) else (0, len(cut) - 1)
    axes.set_xlim(min(cut[first], clip or np.inf) / 1.08, max(cut[last], clip or 0.0) * 1.08)
    if clip is not None:
        touched = f"{share_below(every, cut, clip).mean():.1%} of all pairs, "
        touched += f"{share_below(seen, cut, clip).mean():.1%} of the observed"
        axes.axvspan(axes.get_xlim()[0], clip, color=VERMILLION, alpha=0.1, lw=0)
        axes.axvline(clip, color=VERMILLION, ls="--", label=f"clipped below {clip:g}: {touched}")
    plain_log_ticks(axes, "x")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    ess = np.asarray(effective_sample_size, dtype=np.float64)
    size = f"{plus_minus(ess, ',.0f')} of {n_observed:,.0f} observed"
    if n_observed > 0 and np.isfinite(ess).all():
        size += f" ({np.mean(ess) / n_observed:.0%})"
    axes.set_title(f"effective sample size {size}", color=MUTED)
    axes.set(xlabel=r"propensity $\hat{p}$ (log axis)", ylabel="share of pairs")
    legend_below(figure, axes, columns=2)
    return figure


def _draw_shares(axes: Axes, counts: Array, edges: Array, colour: str, name: str) -> None:
    total = counts.sum(1, keepdims=True)
    width = np.diff(np.log(edges))
    share = np.where(total > 0, counts / np.where(total > 0, total, 1.0), np.nan)
    share = share * (np.median(width) / width)
    mean, sd = (np.nan_to_num(part) for part in finite_mean_sd(share, axis=0))
    axes.stairs(mean, edges, fill=True, color=colour, alpha=0.22)
    axes.stairs(mean, edges, color=colour, lw=1.6, label=name)
    if len(counts) > 1:
        axes.stairs(
            mean + sd,
            edges,
            baseline=np.maximum(mean - sd, 0),
            fill=True,
            color=colour,
            alpha=0.35,
            lw=0,
        )
