"""Mean ranks on a line, rows that do not differ joined by a bar: a critical-difference diagram."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from upo.figures.intervals import as_floats
from upo.figures.style import BLUE, MUTED, VERMILLION, new_figure, styled


@styled()
def critical_difference(
    rows: Sequence[str],  # K names
    ranks: ArrayLike,  # [K] mean ranks, 1 the best
    cliques: Sequence[tuple[int, int]],  # positions in ascending ranks of those joined
    critical: float,  # least difference of ranks that tells two rows apart
    *,
    title: str = "",
    highlight: str | None = None,  # a row in another colour
) -> Figure:
    """One line for each row, the best on top, and beside them bars over rows that do not differ.

    Rows stand below each other, so that any number of them is legible.

    Source: Demsar, JMLR 7, 2006, figure 1; turned by a right angle.

    Raises:
        ValueError: If there is not one rank for each row.
    """
    value = as_floats("ranks", ranks, 1)
    if len(value) != len(rows) or not len(rows):
        raise ValueError(f"critical_difference needs a rank for each row, got {value.shape}.")
    order = np.argsort(value, kind="stable")
    figure = new_figure(5.4 + 0.12 * len(cliques), 1.6 + 0.21 * len(rows), title)
    axes = figure.subplots()
    for place, index in enumerate(order):
        tone = VERMILLION if rows[index] == highlight else BLUE
        axes.plot([1, value[index]], [place, place], color="#E8EAED", zorder=1)
        axes.plot(value[index], place, "o", color=tone, zorder=3)
    right = float(value.max())
    step = 0.03 * max(right - 1, 1.0)
    for number, (first, last) in enumerate(cliques):
        at = right + (number + 2) * step
        axes.plot([at, at], [first - 0.25, last + 0.25], color=MUTED, lw=3, solid_capstyle="butt")
    axes.set_yticks(range(len(rows)), [rows[index] for index in order])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"mean rank; critical difference {critical:.2f} (Nemenyi, 5 %)")
    return figure
