"""What a multirun leaves behind as a whole: tables and figures of its runs, drawn at its end."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from upo.core.files import write_atomically
from upo.errors import InputError
from upo.report import figures
from upo.report.gather import gather
from upo.report.render import csv_text, markdown_text
from upo.report.summary import tables


class ReportRuns(Callback):
    """Hydra callback: after the last run, gathers all of them and reports.

    Args:
        name: First part of the names of what is written.
        out: Folder for tables and figures.
        figures: Functions of ``upo.report.figures`` to draw, such as ``figure1``.
        command: The command to print on top of the table.
        estimators: Those to report; all that have runs in the folder by default.

    Raises:
        InputError: If a figure is unknown.
    """

    def __init__(
        self,
        name: str,
        out: str,
        figures: Sequence[str] = (),
        command: str | None = None,
        estimators: Sequence[str] | None = None,
    ) -> None:
        self.name, self.out, self.figures = name, Path(out), list(figures)
        self.estimators = None if estimators is None else list(estimators)
        self.command = command or f"python train.py experiment={name}"

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write ``NAME-DEFINITION.md``, ``.csv`` and the figures."""
        frame = gather([config.hydra.sweep.dir])
        if self.estimators is not None:
            frame = frame[frame["estimator"].isin(self.estimators)]
        written = []
        for summary in tables(frame):
            stem = self.out / f"{self.name}-{summary.name}"
            text = f"`{self.command}`\n\n{markdown_text([summary])}"
            for suffix, content in ((".md", text), (".csv", csv_text(summary))):
                path = stem.with_name(stem.name + suffix)
                write_atomically(path, content)
                written.append(path)
            sys.stdout.write("\n" + text)
        for name in self.figures:
            draw = getattr(figures, name, None)
            if draw is None:
                raise InputError(f"{name} is no figure of upo.report.figures.")
            for definition, part in frame.groupby("diagnostics", sort=True):
                written += draw(part, self.out / f"{name}-{definition}")
        sys.stdout.write("\nWritten:\n" + "".join(f"  {path}\n" for path in written))
