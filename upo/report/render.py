"""Summaries as Markdown, LaTeX and CSV."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from upo.core.text import guarded, latex, markdown
from upo.metrics.names import DIAGNOSED
from upo.report.summary import COSTS, Summary, labels

NOTE = (
    "Mean ± standard deviation over seeds; [95 % t interval of the mean]; best mean of each column "
    "in bold; in *italics* what the UPO paper prints. Seconds are those of a stack of seeds "
    "divided by their number."
)
SHORT = ("precision@", "recall@", "log_loss", "mse")  # their intervals are in the CSV alone
Bold = Callable[[str], str]


def csv_text(summary: Summary, *, spreadsheet: bool = True) -> str:
    """All numbers, in full.

    Args:
        summary: The table.
        spreadsheet: Put ``'`` before text that a spreadsheet would take for a formula.
    """
    frame = guarded(summary.frame) if spreadsheet else summary.frame
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def markdown_text(summaries: Sequence[Summary]) -> str:
    """Every summary: ranking, diagnostics and costs as tables of their own."""
    lines = [NOTE, ""]
    for summary in summaries:
        lines += [f"## {markdown(summary.title)}", ""]
        for head, body in _blocks(summary, _star, _emphasis, "±"):
            lines.append("| " + " | ".join(map(markdown, head)) + " |")
            lines.append(
                "|" + "---|" * len(summary.keys) + "---:|" * (len(head) - len(summary.keys))
            )
            lines += ["| " + " | ".join(row) + " |" for row in body]
            lines.append("")
    return "\n".join(lines)


def latex_text(summary: Summary) -> str:
    """The same with booktabs, one ``tabular`` after another."""
    lines = [f"% {latex(summary.title)}; needs \\usepackage{{booktabs}}"]
    for head, body in _blocks(summary, _textbf, _textit, r"$\pm$"):
        columns = "l" * len(summary.keys) + "r" * (len(head) - len(summary.keys))
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        lines += [" & ".join(map(latex, head)) + r" \\", r"\midrule"]
        lines += [" & ".join(row) + r" \\" for row in body]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _blocks(
    summary: Summary, best: Bold, paper: Bold, sign: str
) -> list[tuple[list[str], list[list[str]]]]:
    """Head and rows of each part that has columns."""
    tex = best is _textbf
    four = [name for name in summary.metrics if name in DIAGNOSED]
    others = [name for name in summary.metrics if name not in DIAGNOSED]
    shown = labels(summary)
    rows = summary.frame.to_dict("records")
    keys = [
        [(latex if tex else markdown)(_plain(row[key])) for key in summary.keys] for row in rows
    ]
    blocks = []
    for names in (others, four):
        if not names:
            continue
        head = [shown[key] for key in summary.keys] + names
        cells = [[_cell(row, name, best, paper, sign) for name in names] for row in rows]
        blocks.append((head, [k + c for k, c in zip(keys, cells, strict=True)]))
    known = {name: title for name, title in COSTS.items() if name in summary.frame}
    head = [shown[key] for key in summary.keys] + ["seeds", *known.values()]
    costs = [[str(int(row["seeds"])), *(_cost(row, name, paper) for name in known)] for row in rows]
    blocks.append((head, [k + c for k, c in zip(keys, costs, strict=True)]))
    return blocks


def _cell(row: dict[Any, Any], name: str, best: Bold, paper: Bold, sign: str) -> str:
    mean, sd, low, high = (row[f"{name}{end}"] for end in ("", "_sd", "_low", "_high"))
    if math.isnan(mean):
        return "-"
    spec = ".4f" if name not in DIAGNOSED and abs(mean) < 100 else ".3g"
    text = best(f"{mean:{spec}}") if row[f"{name}_best"] else f"{mean:{spec}}"
    if not math.isnan(sd):
        text += f" {sign} {sd:{'.4f' if spec == '.4f' else '.2g'}}"
        text += "" if name.startswith(SHORT) else f" [{low:{spec}}, {high:{spec}}]"
    known = row.get(f"{name}_paper", math.nan)
    return text if math.isnan(known) else f"{text} {paper(f'{known:g}')}"


def _cost(row: dict[Any, Any], name: str, paper: Bold) -> str:
    value, known = row[name], row.get(f"{name}_paper", math.nan)
    if math.isnan(value):
        return "-"
    text = f"{value:,.0f}" if name == "parameters" else f"{value:.3g}"
    return text if math.isnan(known) else f"{text} {paper(f'{known:,g}')}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _star(text: str) -> str:
    return f"**{text}**"


def _emphasis(text: str) -> str:
    return f"*{text}*"


def _textbf(text: str) -> str:
    return rf"\textbf{{{text}}}"


def _textit(text: str) -> str:
    return rf"\textit{{{text}}}"
