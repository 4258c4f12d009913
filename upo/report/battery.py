"""The battery's table: row x log, relative to the constant prediction and to the row ``naive``."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from upo.core.files import write_atomically
from upo.report.gather import gather

NOTES = {
    "gain": (
        "Held-out log-loss below that of the constant prediction (the training mean), in percent "
        "of it; more is better. `!` marks a row in which some seed is not better than the constant "
        "by two standard errors."
    ),
    "beside_naive": "Held-out log-loss above that of `naive`, in percent of it; less is better.",
    "auc": "AUC on the test rows; that of the constant is .5.",
    "auc_beside_naive": "AUC on the test rows less that of `naive`.",
}


def battery_frame(frame: pd.DataFrame, base: str) -> pd.DataFrame:
    """A line for each row and log.

    Args:
        frame: From `upo.report.gather.gather`; the datasets are called ``battery-LOG``.
        base: The row that the others are compared with.

    Returns:
        log, estimator, seeds; means over the seeds of the held-out log-loss, the constant's, and
        the test AUC; then the columns of `NOTES`; ``useless``, the number of seeds that are not
        better than the constant by two standard errors; share at the clip, effective sample size.
    """
    lines = []
    for (dataset, estimator), runs in frame.groupby(["dataset", "estimator"], sort=False):
        gain = runs["val_constant_log_loss"] - runs["val_log_loss"]
        mean = runs.mean(numeric_only=True)
        line: dict[str, Any] = {
            "log": str(dataset).removeprefix("battery-"),
            "estimator": str(estimator),
            "seeds": len(runs),
            "useless": int((~(gain > 2 * runs["val_gain_error"])).sum()),
        }
        names = ("val_log_loss", "val_constant_log_loss", "auc", "clip_share")
        line |= {name: mean.get(name, math.nan) for name in (*names, "effective_sample_size")}
        line["gain"] = 100 * (1 - mean["val_log_loss"] / mean["val_constant_log_loss"])
        lines.append(line)
    table = pd.DataFrame(lines)
    naive = table[table["estimator"] == base].set_index("log")
    for ours, column in (("beside_naive", "val_log_loss"), ("auc_beside_naive", "auc")):
        beside = table["log"].map(naive[column].to_dict()).astype(float)
        gap = table[column] - beside
        table[ours] = 100 * gap / beside if column == "val_log_loss" else gap
    return table


def battery_text(table: pd.DataFrame, command: str) -> str:
    """A Markdown table of row x log for each column of `NOTES`."""
    logs, rows = (list(dict.fromkeys(table[name])) for name in ("log", "estimator"))
    lines = [f"`{command}`", ""]
    at = table.set_index(["estimator", "log"])
    for column, note in NOTES.items():
        if table[column].isna().all():  # no run of `naive` beside
            continue
        lines += [note, "", f"| row | {' | '.join(logs)} |", "|---" * (len(logs) + 1) + "|"]
        for row in rows:
            cells = []
            for log in logs:
                value = float(at[column].get((row, log), math.nan))
                mark = "!" if column == "gain" and at["useless"].get((row, log), 0) else ""
                digits = ".1f" if column in ("gain", "beside_naive") else ".3f"
                cells.append("" if math.isnan(value) else f"{value:{digits}}{mark}")
            lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


class ReportBattery(Callback):
    """Hydra callback: after the last run of the battery, gathers all of them into the table.

    Args:
        out: Folder for ``battery.md`` and ``battery.csv``.
        base: The row that the others are compared with.
        command: The command to print on top.
        estimators: Those to report; all that have runs in the folder by default.
    """

    def __init__(
        self,
        out: str,
        base: str,
        command: str = "python train.py experiment=battery",
        estimators: Sequence[str] | None = None,
    ) -> None:
        self.out, self.base, self.command = Path(out), base, command
        self.estimators = None if estimators is None else list(estimators)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the tables."""
        frame = gather([config.hydra.sweep.dir])
        if self.estimators is not None:
            frame = frame[frame["estimator"].isin(self.estimators)]
        table = battery_frame(frame, self.base)
        text = battery_text(table, self.command)
        write_atomically(self.out / "battery.md", text)
        content = table.to_csv(index=False, lineterminator="\n")
        write_atomically(self.out / "battery.csv", content)
        sys.stdout.write(f"\n{text}\nWritten:\n")
        sys.stdout.write("".join(f"  {self.out / 'battery'}{end}\n" for end in (".md", ".csv")))
