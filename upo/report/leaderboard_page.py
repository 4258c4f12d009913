"""Leaderboards as a page, a CSV file and figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from upo import figures
from upo.core.files import write_atomically
from upo.core.text import guarded, markdown
from upo.metrics.names import CATALOGUE
from upo.report.leaderboard import BASE, Board, over_logs
from upo.report.ranks import Ranks, cliques

HEAD = """# Leaderboard

`{command}`

Best of each column in bold; `=` is within one standard error of the best. *to naive*: mean paired
difference with its 95 % interval (test users and seeds drawn, crossed), `*` where it differs from 0
at 5 % after Holm's correction over the rows. ECE and BMSE on cells that the propensity was not
fitted to, in brackets the floor that correct propensities would have; blank where there are none.
Budget: trials x seeds of each, epochs. How to read all this: docs/leaderboard.md.
"""
PAIRED = ("auc", "ndcg@")  # whose differences are shown; the others are in the CSV
SHORT = {"auc": "AUC", "log_loss": "log-loss", "val_log_loss": "held-out log-loss"}


def write(boards: Sequence[Board], path: Path, command: str) -> list[Path]:
    """Write the page at ``path``, all numbers as CSV beside it, and a figure of each board.

    Args:
        boards: From `upo.report.leaderboard.boards`.
        path: Ends in ``.md``.
        command: Printed on top.
    """
    written = [path]
    parts = [HEAD.format(command=command)]
    for board in boards:
        drawn = _figure(board, path)
        written += [] if drawn is None else [drawn]
        parts.append(text(board, drawn))
    together = over_logs(boards)
    if together is not None:
        rows, ranks = together
        title = f"Over {ranks.blocks} logs, by {', '.join({board.metrics[0] for board in boards})}"
        written.append(_ranked(rows, ranks, title, path.with_name(f"{path.stem}-logs-ranks.png")))
        parts.append(_together(rows, ranks, title, written[-1]))
    write_atomically(path, "\n".join(parts))
    frame = pd.concat([board.frame.assign(board=board.title) for board in boards])
    first = ["board", *(name for name in frame.columns if name != "board")]
    numbers: str = guarded(frame[first]).to_csv(index=False, lineterminator="\n")
    write_atomically(path.with_suffix(".csv"), numbers)
    return [*written, path.with_suffix(".csv")]


def text(board: Board, drawn: Path | None = None) -> str:
    """One board in Markdown."""
    rows = board.frame.to_dict("records")
    seeds = sorted({int(row["seeds"]) for row in rows})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    paired = [m for m in board.metrics if m.startswith(PAIRED) and f"{m}_naive" in board.frame]
    head = ["row"]
    for metric in board.metrics:
        head += [SHORT.get(metric, metric), *(["to naive"] if metric in paired else [])]
    recall = next((c for c in board.frame if str(c).startswith(CATALOGUE)), None)
    head += ["ECE (floor), 1e-3", "BMSE (floor), 1e-3", "DR bias, 1e-3", "DR variance, 1e-5"]
    head += ["catalogue recall"]
    head += ["clip", "at clip", "ESS", "budget", "s / seed"]
    lines = [f"## {markdown(board.title)}", "", *_verdict(board), ""]
    lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        cells = [markdown(row["row"])]
        for metric in board.metrics:
            cells.append(_marked(row, metric, "{:.4f}"))
            cells += [_paired(row, metric)] if metric in paired else []
        cells += [_floored(row, "held_ece"), _floored(row, "held_bmse")]
        for name, scale in (("dr_bias", 1e3), ("dr_variance", 1e5)):
            cells.append(_marked(row, name, "{:.3g}", scale))
        cells.append("" if recall is None else _number(row.get(recall), "{:.4f}"))
        for name, form in (("clip", "{:.3g}"), ("clip_share", "{:.0%}")):
            cells.append(_number(row.get(name), form))
        cells.append(_number(row.get("effective_sample_size"), "{:.2f}"))
        cells += [_budget(row), _number(row.get("seconds_per_seed"), "{:.3g}")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{count} seeds.", *(f"- {markdown_sentence(note)}" for note in board.notes)]
    if drawn is not None:
        lines += ["", f"![Mean ranks over blocks of test users]({drawn.name})"]
    return "\n".join(lines) + "\n"


def markdown_sentence(note: str) -> str:
    """A sentence of a file as it is, in one line of any length."""
    return " ".join(markdown(word) for word in note.split())


def _verdict(board: Board) -> list[str]:
    """In words: who is best, where naive stands, who differs from it."""
    frame, metric = board.frame, board.metrics[0]
    names = list(frame["row"])
    said = [f"Best {SHORT.get(metric, metric)}: {markdown(names[0])}."]
    if BASE in names and names[0] != BASE:
        said.append(f"`naive` is number {names.index(BASE) + 1} of {len(names)}.")
    for each in board.metrics:
        column = f"{each}_naive"
        if not each.startswith(PAIRED) or column not in frame:
            continue
        sure = frame[frame[f"{column}_p"] < 0.05]
        for word, part in (("above", sure[sure[column] > 0]), ("below", sure[sure[column] < 0])):
            rows = ", ".join(map(markdown, part["row"])) or "no row"
            said.append(f"{SHORT.get(each, each)} {word} that of naive after Holm: {rows}.")
    return [" ".join(said)]


def _figure(board: Board, path: Path) -> Path | None:
    if board.ranks is None:
        return None
    title = f"{board.metrics[0]} over {board.ranks.blocks} blocks of test users\n{board.title}"
    place = path.with_name(f"{path.stem}-{board.name}-ranks.png")
    return _ranked(list(board.frame["row"]), board.ranks, title, place)


def _ranked(rows: Sequence[str], ranks: Ranks, title: str, path: Path) -> Path:
    drawn = figures.critical_difference(
        rows,
        ranks.mean,
        cliques(sorted(ranks.mean), ranks.critical),
        ranks.critical,
        title=title,
        highlight=BASE,
    )
    return figures.save(drawn, path)


def _together(rows: Sequence[str], ranks: Ranks, title: str, drawn: Path) -> str:
    """Mean ranks over logs in Markdown."""
    order = sorted(zip(ranks.mean.tolist(), rows, strict=True))
    lines = [
        f"## {title}",
        "",
        f"Rows differ by {ranks.critical:.2f} mean ranks (Nemenyi, 5 %).",
        "",
    ]
    lines += ["| row | mean rank |", "|---|---:|"]
    lines += [f"| {markdown(row)} | {rank:.2f} |" for rank, row in order]
    return "\n".join([*lines, "", f"![Mean ranks over logs]({drawn.name})", ""])


def _number(value: Any, form: str) -> str:
    return "" if value is None or math.isnan(value) else form.format(value)


def _marked(row: dict[Any, Any], name: str, form: str, scale: float = 1.0) -> str:
    value = row.get(name, math.nan)
    if math.isnan(value):
        return ""
    shown = form.format(scale * value)
    return f"**{shown}**" if row[f"{name}_best"] else f"{shown} =" if row[f"{name}_tied"] else shown


def _paired(row: dict[Any, Any], metric: str) -> str:
    ends = ("", "_low", "_high", "_p")
    mean, low, high, p = (float(row.get(f"{metric}_naive{end}", math.nan)) for end in ends)
    if math.isnan(mean):
        return ""
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" + (" *" if p < 0.05 else "")


def _floored(row: dict[Any, Any], name: str) -> str:
    value, floor = row.get(name), row.get(f"{name}_floor")
    if value is None or floor is None or math.isnan(value):
        return ""
    return f"{_marked(row, name, '{:.3g}', 1e3)} ({1e3 * floor:.3g})"


def _budget(row: dict[Any, Any]) -> str:
    if row.get("trials") is None or row["trials"] < 0:
        return ""
    search = f"{row['trials']:.0f} x {row['trial_seeds']:.0f}" if row["trials"] else "defaults"
    return f"{search}, {row['epochs']:.0f}"
