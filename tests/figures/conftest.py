"""Draws are checked as a reader sees them; look with `pytest tests/figures --basetemp=DIR`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from upo import figures


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def check(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., None]:
    """The figure holds these words, fits its canvas, and saves as a small PNG."""

    def check(figure: Figure, *words: str) -> None:
        path = figures.save(figure, tmp_path / "figure.png")
        assert 2_000 < path.stat().st_size < 100_000
        text = "\n".join(item.get_text() for item in figure.findobj(Text))
        assert [word for word in words if word not in text] == []
        drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
        width, height = figure.get_size_inches()
        slack = 0.03  # inches: constrained layout rounds to pixels
        assert drawn.x0 >= -slack
        assert drawn.y0 >= -slack
        assert drawn.x1 <= width + slack
        assert drawn.y1 <= height + slack

    return check
