"""Figures of a run: pure functions from arrays to a matplotlib ``Figure``, and `save`."""

from upo.figures.comparison import grouped_bars, line_panels
from upo.figures.curves import CurvePanel, curve_panels, curves
from upo.figures.histogram import propensity_histogram
from upo.figures.png import save
from upo.figures.ranks import critical_difference
from upo.figures.reliability import reliability_diagram
from upo.figures.residuals import worst_bin_residuals

__all__ = [
    "CurvePanel",
    "critical_difference",
    "curve_panels",
    "curves",
    "grouped_bars",
    "line_panels",
    "propensity_histogram",
    "reliability_diagram",
    "save",
    "worst_bin_residuals",
]
