"""The love plot: imbalance of each feature before and after inverse weighting."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from upo.figures.style import BLUE, EMPTY, MUTED, VERMILLION, legend_below, new_figure, styled

MOST = 25  # features drawn, those of the largest |z|


@styled()
def love_plot(balance: pd.DataFrame, *, alpha: float, title: str) -> Figure:
    """Standardised differences; a band holds 95 % of each at correct propensities.

    Args:
        balance: Columns of :attr:`upo.audit.result.Audit.balance`, at least one row; its first 25
            rows are drawn.
        alpha: Features with ``p_adjusted`` of at most this are drawn as found.
        title: Heading.
    """
    table = balance.head(MOST)
    places = np.arange(len(table))[::-1]
    figure = new_figure(6.4, 1.7 + 0.27 * len(table), title)
    axes = figure.subplots()
    axes.barh(
        places,
        2 * 1.96 * table.standard_error,
        left=-1.96 * table.standard_error,
        height=0.62,
        color=EMPTY,
        label="95 % at correct propensities",
    )
    axes.axvline(0, color=MUTED, lw=1)
    axes.scatter(
        table.before,
        places,
        s=26,
        facecolors="none",
        edgecolors=MUTED,
        label="unweighted: observed less unobserved",
    )
    found = (table.p_adjusted <= alpha).to_numpy()
    for some, colour, marker, label in (
        (~found, BLUE, "o", "weighted"),
        (found, VERMILLION, "D", "weighted, found unbalanced"),
    ):
        if some.any():
            axes.scatter(
                table.after[some],
                places[some],
                s=30,
                color=colour,
                marker=marker,
                label=label,
                zorder=3,
            )
    names = [name if len(name) <= 34 else f"{name[:33]}…" for name in table.feature]
    axes.set_yticks(places, names, parse_math=False)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("standard deviations of the feature over all pairs")
    axes.set_title(f"BMSE {np.square(balance.after).sum():.3g} over {len(balance)} features")
    legend_below(figure, axes, columns=2)
    return figure
