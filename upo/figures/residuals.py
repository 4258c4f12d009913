"""Where the propensities are wrong while UPO trains, and which bin its adversary attacks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import ArrayLike

from upo.figures.curves import draw_spread
from upo.figures.intervals import Array, as_floats, cell_edges, finite_mean_sd
from upo.figures.style import BLACK, DIVERGING, EMPTY, halo, new_figure, styled


def worst_bins(residuals: Array) -> Array:
    """The bin of the largest absolute residual in each row of ``[T, M]``; NaN where all are.

    >>> worst_bins(np.array([[0.1, -0.3], [np.nan, 0.2], [np.nan, np.nan]])).tolist()
    [1.0, 1.0, nan]
    """
    size = np.where(np.isfinite(residuals), np.abs(residuals), -1.0)
    return np.where(size.max(1) >= 0, size.argmax(1), np.nan)


@styled()
def worst_bin_residuals(
    steps: ArrayLike,  # [T], increasing
    residuals: ArrayLike,  # [T, M] or [T, R, M], mean of o - p_hat per bin, NaN where empty
    *,
    title: str,
    worst: ArrayLike | None = None,  # [T], the bin where the adversary's term is largest
    bin_edges: ArrayLike | None = None,  # [M + 1], labels the bins by propensity
) -> Figure:
    """Signed residual by bin and step, the worst bin marked, and the largest residual below.

    Colours are the mean over replicas; they end at the 95th percentile of the sizes, so that the
    first steps do not drown the rest. Without ``worst`` the bin of the largest residual is marked.
    A positive residual is a propensity that is too low. Grey is an empty bin.

    Raises:
        ValueError: If the shapes do not fit or the steps do not increase.
    """
    at = as_floats("steps", steps, 1)
    given = as_floats("residuals", residuals, 2, 3)
    each = given[:, None] if given.ndim == 2 else given  # [T, R, M]
    bins = each.shape[2]
    if len(at) != len(each) or not len(at) or (np.diff(at) <= 0).any():
        raise ValueError(
            f"worst_bin_residuals needs increasing steps, one per row of residuals {given.shape}, "
            f"got {len(at)}."
        )
    mean = finite_mean_sd(each, axis=1)[0]  # [T, M]
    marked = worst_bins(mean) if worst is None else as_floats("worst", worst, 1)
    if len(marked) != len(at):
        raise ValueError(f"worst needs one bin per step ({len(at)}), got {len(marked)}.")

    figure = new_figure(6.8, 5.0, title)
    heat, line = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
    sizes = np.abs(mean[np.isfinite(mean)])
    limit = float(np.quantile(sizes, 0.95)) if len(sizes) else 0.0
    limit = limit or 1.0
    heat.set_facecolor(EMPTY)
    mesh = heat.pcolormesh(
        cell_edges(at),
        np.arange(bins + 1) + 0.5,
        np.ma.masked_invalid(mean.T),
        cmap=DIVERGING,
        vmin=-limit,
        vmax=limit,
    )
    heat.plot(
        at,
        marked + 1,
        ls="",
        marker="o",
        mfc="none",
        mec=BLACK,
        mew=1.1,
        ms=6 if len(at) <= 40 else 3,
        path_effects=halo(2.4),
        label="worst bin",
    )
    heat.grid(visible=False)
    heat.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
    _label_bins(heat, bins, None if bin_edges is None else as_floats("bin_edges", bin_edges, 1))
    extend = "both" if len(sizes) and sizes.max() > limit else "neither"
    figure.colorbar(
        mesh,
        ax=[heat, line],
        extend=extend,
        pad=0.02,
        label=r"mean residual $o - \hat{p}$ (positive: propensity too low)",
    )
    finite = np.isfinite(each)
    largest = np.where(finite, np.abs(each), -1.0).max(2)  # [T, R]
    draw_spread(line, at, np.where(largest < 0, np.nan, largest), 0, "largest")
    line.set_ylim(bottom=0)
    line.set(xlabel="training step", ylabel="largest\n|residual|")
    line.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _label_bins(heat: Axes, bins: int, edges: Array | None) -> None:
    """Number the bins, or write the propensities between them."""
    if edges is None:
        heat.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        heat.set_ylabel("propensity bin (1 = lowest)")
        return
    if len(edges) != bins + 1:
        raise ValueError(f"bin_edges needs {bins + 1} values for {bins} bins, got {len(edges)}.")
    shown = np.arange(0, bins + 1, -(-bins // 12))
    heat.yaxis.set_major_locator(FixedLocator((shown + 0.5).tolist()))
    heat.set_yticklabels([f"{edges[i]:.2g}" for i in shown])
    heat.set_ylabel(r"propensity bin (edges of $\hat{p}$)")
