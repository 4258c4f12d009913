"""One look for every figure: colours, fonts, headings and ticks, whatever the user's settings."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito, "Color Universal Design", 2008; yellow is last, being weak on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW = PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
MUTED = "#5F6368"  # secondary text and reference lines
EMPTY = "#E3E5E8"  # cells without data
DIVERGING = "PuOr_r"  # signed values; its two ends differ for every kind of colour vision
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "xxxx")  # one more for each lap of the palette
LINES = ("-", "--", ":", "-.")  # likewise

RC: dict[str, object] = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#9AA0A6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E8EAED",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#9AA0A6",
    "ytick.color": "#9AA0A6",
    "xtick.labelcolor": "#202124",
    "ytick.labelcolor": "#202124",
    "savefig.dpi": 110,
    "figure.dpi": 110,
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults plus `RC`, whatever the user's own settings; also a decorator."""
    with matplotlib.style.context(RC, after_reset=True):
        yield


def colour(index: int) -> str:
    """The palette's colour for series ``index``, starting over after the last."""
    return PALETTE[index % len(PALETTE)]


def lap(index: int, choices: tuple[str, ...]) -> str:
    """What tells series ``index`` from the one of the same colour a lap of the palette before."""
    return choices[index // len(PALETTE) % len(choices)]


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, with a heading taken literally (no TeX)."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06, wspace=0.03)
    if title:
        figure.suptitle(title, x=0.01, ha="left", size=11.5, weight="bold", parse_math=False)
    return figure


def legend_below(figure: Figure, axes: Axes, *, columns: int = 4, note: str | None = None) -> None:
    """The legend of ``axes`` under the whole figure, where it hides no data, below a ``note``."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), columns),
            title=note,
            title_fontproperties={"size": 8.5, "style": "italic"},
        )


def halo(width: float) -> list[AbstractPathEffect]:
    """A white rim that keeps dark marks visible on dark colours."""
    return [withStroke(linewidth=width, foreground="white")]


def plain(value: float, _: object = None) -> str:
    """A tick's number without needless digits.

    >>> plain(0.02), plain(0.00005), plain(2.0)
    ('0.02', '5e-5', '2')
    """
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"


def plain_log_ticks(axes: Axes, which: str) -> None:
    """Label a log axis ("x" or "y") as 0.02, not 2 x 10^-2, at as many steps as fit."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    span = high / low
    subs = (1.0,) if span > 3000 else (1.0, 3.0) if span > 60 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())
