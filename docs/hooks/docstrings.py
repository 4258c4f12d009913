"""Docstrings as they are written for Python's help become Markdown for the site."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:func|class|mod|meth):`~?([^`]+)`")
FORMULA = re.compile(r":math:`([^`]+)`", re.DOTALL)
DISPLAYED = re.compile(r"^( *)\.\. math:: (.*\n(?:\1 +\S.*\n)*)", re.MULTILINE)
SESSION = re.compile(r"^( *)>>> .*\n(?:\1\S.*\n)*", re.MULTILINE)
SOURCE = re.compile(r"^( *)Source: ", re.MULTILINE)


def _displayed(match: re.Match[str]) -> str:
    indent, formula = match[1], " ".join(match[2].split())
    return f"{indent}$$\n{indent}{formula}\n{indent}$$\n"


def _session(match: re.Match[str]) -> str:
    indent = match[1]
    return f"{indent}```pycon\n{match[0]}{indent}```\n"


def markdown(text: str) -> str:
    """The same text in Markdown."""
    text = DISPLAYED.sub(_displayed, text + "\n")
    text = FORMULA.sub(lambda m: f"${' '.join(m[1].split())}$", text)
    text = ROLE.sub(r"`\1`", text)
    text = SOURCE.sub(r"\1*Source:* ", text)
    return SESSION.sub(_session, text).rstrip()


class Docstrings(Extension):
    """Rewrites each docstring once it is read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
