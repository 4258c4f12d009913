"""Formulas become MathML while the site is built, which browsers draw without a script."""

import html
import re

from latex2mathml.converter import convert

# what arithmatex leaves of $x$ and $$x$$
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def _mathml(latex: str, display: str) -> str:
    text = html.unescape(re.sub(r"<[^>]+>", "", latex)).strip()
    text = re.sub(r"\\(mathrm|operatorname)\{(\w{2,})\}", r"\\text{\2}", text)
    drawn = convert(text, display=display).replace("&#x0005E;</mo>", "&#x02C6;</mo>")
    # a bar is taken for an operator between two terms, with the spaces of one
    return re.sub(r"<mo([^>]*)>(&#x0007C;|\|)</mo>", r'<mo\1 lspace="0" rspace="0">|</mo>', drawn)


def on_page_content(content: str, **_: object) -> str:
    """Replace the formulas of a page."""
    content = BLOCK.sub(lambda m: f'<div class="formula">{_mathml(m[1], "block")}</div>', content)
    return INLINE.sub(lambda m: _mathml(m[1], "inline"), content)
