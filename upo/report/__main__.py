"""Tables and figures: ``python -m upo.report RUNS... [out=FOLDER] [formats=md,csv,tex]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from upo.core.console import quiet, sentences
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.report.figures import every_figure
from upo.report.gather import gather
from upo.report.render import csv_text, latex_text, markdown_text
from upo.report.summary import tables

FORMATS = ("md", "csv", "tex")
USAGE = "python -m upo.report RUNS... [out=FOLDER] [formats=md,csv,tex]"


def report(arguments: Sequence[str]) -> int:
    """Gather finished runs and write their tables and figures.

    Raises:
        InputError: If an argument is wrong, no finished run is found, or one is damaged.
    """
    options = {"out": "report", "formats": ",".join(FORMATS)}
    runs = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in options:
            options[key] = value
        else:
            runs.append(argument)
    formats = [name.strip() for name in options["formats"].strip("[]").split(",")]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"formats={options['formats']}: {unknown[0]!r} is none of {FORMATS}.")
    if not runs:
        raise InputError(f"No runs were named; use {USAGE}.")
    frame = gather(runs)
    out = Path(options["out"])
    summaries = tables(frame)
    text = markdown_text(summaries)
    written = []
    if "md" in formats:
        write_atomically(out / "tables.md", text)
        written.append(out / "tables.md")
    for summary in summaries:
        for suffix, render in (("csv", csv_text), ("tex", latex_text)):
            if suffix in formats:
                write_atomically(out / f"{summary.name}.{suffix}", render(summary))
                written.append(out / f"{summary.name}.{suffix}")
    written += every_figure(frame, out)
    sys.stdout.write(text + "\nWritten:\n" + "".join(f"  {path}\n" for path in written))
    return 0


if __name__ == "__main__":
    quiet()
    raise SystemExit(sentences(lambda: report(sys.argv[1:])))
