"""Text of a stranger's file, made fit for a file name, a cell of a table, Markdown and LaTeX."""

import hashlib
import re
from typing import Any

import pandas as pd

from upo.errors import visible

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", **{mark: "\\" + mark for mark in "&%$#_{}"},
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def file_name(text: str) -> str:
    """A name without folders; another text never has the same.

    >>> file_name("coat-holdout"), file_name("../../x").startswith("x-")
    ('coat-holdout', True)
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip("._-")[:80]
    if plain == text:
        return plain
    return f"{plain}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")


def markdown(text: Any) -> str:
    """Text that Markdown shows as it is, in a cell or a heading."""
    return re.sub(r"([\\`*_\[\]<>|#~$&!])", r"\\\1", visible(str(text), 80))


def latex(text: Any) -> str:
    r"""Text that LaTeX sets as it is.

    >>> latex(r"\input{x}")
    '\\textbackslash{}input\\{x\\}'
    """
    return "".join(_LATEX.get(mark, mark) for mark in visible(str(text), 80))


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Text of which a spreadsheet makes no formula: ``'`` before ``= + - @``; names as well."""
    changed = frame.copy()
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            changed.isetitem(place, [_guarded(cell) for cell in frame.iloc[:, place]])
    return changed.rename(columns=_guarded)


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
