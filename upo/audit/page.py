"""Pieces of a page of HTML that needs no other file: template, tables, pictures."""

import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from io import BytesIO
from string import Template
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from upo.errors import visible
from upo.figures.style import styled

DPI = 144  # sharp on dense screens; the page scales pictures down to its width

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: #fff; color: #202124;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-top: 1px solid #dadce0; padding-top: 1rem; }
p { max-width: 46rem; margin: .5rem 0; }
.verdict { border-left: .4rem solid #0072b2; padding: .6rem .8rem; background: #f1f6fa;
  font-size: 1.05rem; }
.verdict.found { border-color: #d55e00; background: #fdf3ec; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; padding: 0; }
.facts div { min-width: 8rem; }
.facts dt { color: #5f6368; font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.25rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 20rem; max-width: 36rem; }
img { width: 100%; height: auto; display: block; }
figcaption, .note { color: #5f6368; font-size: .9rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e8eaed;
  vertical-align: top; }
th { color: #5f6368; font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 8rem; }
tr.found td { background: #fdf3ec; }
ol { padding-left: 1.6rem; max-width: 60rem; }
ol li { margin: .3rem 0; }
summary { cursor: pointer; color: #0b57a4; }
code { font-size: .9em; }
</style>
</head>
<body>
$body
</body>
</html>
""")

Formats = Mapping[str, tuple[str, str | Callable[[Any], str]]]


def table(frame: pd.DataFrame, formats: Formats, found: "pd.Series[bool] | None" = None) -> str:
    """A table of some columns.

    Args:
        frame: Its rows.
        formats: Column -> heading and format, a format string or a function.
        found: Rows to mark, in the order of ``frame``.
    """
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in formats.values())
    marks = [False] * len(frame) if found is None else found.tolist()
    lines = []
    for place, mark in enumerate(marks):
        row = frame.iloc[place]
        cells = (
            form(row[name]) if callable(form) else format(row[name], form)
            for name, (_, form) in formats.items()
        )
        start = '<tr class="found">' if mark else "<tr>"
        lines.append(
            start
            + "".join(f"<td><bdi>{escape(visible(cell, 200))}</bdi></td>" for cell in cells)
            + "</tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def facts(values: Mapping[str, str]) -> str:
    """A few numbers in large type."""
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items())
    return f'<dl class="facts">{"".join(items)}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def picture(figure: Figure, alt: str) -> str:
    """A figure as PNG inside the page."""
    drawn = BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    data = b64encode(drawn.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt, quote=True)}"></figure>'
    )
