"""A logger that writes ``metrics.csv``: a row for each epoch, of which none is ever lost."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger
from omegaconf import OmegaConf

from upo.core.files import write_atomically

_AXES = ("epoch", "step")


class MetricsCsv(Logger):
    """Rows of ``metrics.csv``, written as they come, and the configuration in ``hparams.yaml``.

    A resumed run goes on in the file of its first start. An epoch that was logged but not yet in
    the checkpoint is trained again and gives the same row, which is not written twice. A row that
    does not fit on the disk is taken back.

    Args:
        save_dir: Run folder.
        name: A folder in it, or nothing.
        version: A folder in that.
        resume: Go on with the file that is there, instead of starting a new one.
    """

    def __init__(
        self, save_dir: str, name: str = "", version: str = "logs", *, resume: bool = False
    ) -> None:
        super().__init__()
        self._save_dir, self._name, self._version = save_dir, name, version
        self._path = Path(save_dir, name, version, "metrics.csv")
        self._begun = False
        self._resume = resume
        self._columns: list[str] = []
        self._last: dict[str, int] = {}  # step of a column's last value

    @property
    def name(self) -> str:
        """The folder in the run folder."""
        return self._name

    @property
    def version(self) -> str:
        """The folder in that."""
        return self._version

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._save_dir

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write the configuration, once."""
        path = self._path.with_name("hparams.yaml")
        if not (self._resume and path.exists()):
            write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(params), resolve=True))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row with what was not logged for this step before."""
        if not self._begun:
            self._begin()
        number = 0 if step is None else step
        new = {
            name: float(value)
            for name, value in metrics.items()
            if name not in _AXES and self._last.get(name, -1) < number
        }
        if not new:
            return
        self._last |= dict.fromkeys(new, number)
        axes = {name: value for name, value in metrics.items() if name in _AXES}
        row = new | axes | ({} if step is None else {"step": step})
        if not set(row) <= set(self._columns):
            self._columns = sorted({*self._columns, *row})
            self._widen()
        self._append(_line([row.get(name, "") for name in self._columns]))

    def _begin(self) -> None:
        self._begun = True
        if not self._resume:
            self._path.unlink(missing_ok=True)
        elif self._path.exists():
            self._whole_lines()
            for row in self._rows():
                self._columns = list(row)
                for name, value in row.items():
                    if value and name not in _AXES:
                        self._last[name] = int(row.get("step") or 0)

    def _rows(self) -> list[dict[str, str]]:
        with self._path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, restval="", strict=False))

    def _whole_lines(self) -> None:
        """Take back a row that a kill has cut."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)

    def _widen(self) -> None:
        """Give the file a head of all columns."""
        rows = self._rows() if self._path.exists() else []
        lines = [_line(self._columns)]
        lines += [_line([row.get(name, "") for name in self._columns]) for row in rows]
        write_atomically(self._path, "".join(lines))

    def _append(self, line: str) -> None:
        size = self._path.stat().st_size
        try:
            with self._path.open("ab", buffering=0) as file:
                content = line.encode()
                if file.write(content) < len(content):  # the disk took a part
                    file.write(content)  # and says now why
        except OSError as error:
            os.truncate(self._path, size)
            error.filename = str(self._path)
            raise


def _line(values: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()
