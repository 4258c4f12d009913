"""Tables and figures: ``python -m upo.report RUNS... [out=FOLDER] [formats=md,csv,tex]``."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from upo.core.arguments import Command, argument, unknown
from upo.core.console import command, quiet, say
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.report.figures import every_figure
from upo.report.gather import gather
from upo.report.leaderboard import boards
from upo.report.leaderboard_page import text, write
from upo.report.render import csv_text, latex_text, markdown_text
from upo.report.summary import tables

FORMATS = ("md", "csv", "tex")


@dataclass(frozen=True)
class Settings:
    """What the command line takes beside the runs."""

    out: Path = argument("gets the tables and the figures", default=Path("report"), value="FOLDER")
    formats: tuple[str, ...] = argument(
        "of the tables", default=FORMATS, value="A,B", choices=FORMATS
    )
    leaderboard: Path | None = argument(
        "writes a page of all rows with paired differences to naive (docs/leaderboard.md)",
        default=None,
        value="FILE.md",
    )
    spreadsheet: bool = argument(
        "put ' before text in CSV that a spreadsheet would take for a formula",
        default=True,
        value="false",
    )


COMMAND = Command(
    "report",
    "Tables and figures of finished runs",
    Settings,
    ("RUNS... [out=FOLDER] [formats=md,csv,tex]", "RUNS... leaderboard=FILE.md"),
    rest="RUNS are run folders, multirun or benchmark folders, or CSV files of results.",
)


def main(words: Sequence[str]) -> int:
    """Gather finished runs and write their tables and figures.

    Raises:
        InputError: If an argument is wrong, no finished run is found, or one is damaged.
    """
    given, runs = COMMAND.parse(words)
    for word in runs:
        key, equals, _ = word.partition("=")
        if ((equals and key.isidentifier()) or word.startswith("-")) and not Path(word).exists():
            raise unknown(word, ["out", "formats", "leaderboard", "spreadsheet"], "upo report")
    if not runs:
        raise InputError(f"No runs were named; write upo report {COMMAND.usage[0]}.")
    frame = gather(runs)
    if given.leaderboard is not None:
        return _leaderboard(frame, given.leaderboard, words)
    out, formats = given.out, given.formats
    plain = given.spreadsheet
    try:
        summaries = tables(frame)
        page = markdown_text(summaries)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"The results in {', '.join(runs)} make no table ({error}); leave out what is damaged."
        ) from error
    written = []
    if "md" in formats:
        write_atomically(out / "tables.md", page)
        written.append(out / "tables.md")
    for summary in summaries:
        for suffix, render in (("csv", partial(csv_text, spreadsheet=plain)), ("tex", latex_text)):
            if suffix in formats:
                write_atomically(out / f"{summary.name}.{suffix}", render(summary))
                written.append(out / f"{summary.name}.{suffix}")
    written += every_figure(frame, out)
    say(page + "\nWritten:\n" + "\n".join(f"  {path}" for path in written))
    return 0


def _leaderboard(frame: pd.DataFrame, path: Path, words: Sequence[str]) -> int:
    if path.suffix != ".md":
        raise InputError(f"leaderboard={path} must end in .md; a CSV file is written beside it.")
    found = boards(frame)
    written = write(found, path, "python -m upo.report " + shlex.join(words))
    say("\n".join(text(board) for board in found))
    say("Written:\n" + "\n".join(f"  {each}" for each in written))
    return 0


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
