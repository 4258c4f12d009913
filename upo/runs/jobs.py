"""Jobs of a sweep that fail: each costs itself alone, and is named at the end.

A job may run in another process, so what ended it is noted in its folder.
"""

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from upo.core.console import UNFINISHED, WRONG, first_process
from upo.core.files import write_atomically

NAME = "failed.txt"  # the status and the sentence
_failed: list[tuple[Path, int, str]] = []


class Jobs(Callback):
    """Hydra callback: gathers what the jobs of a sweep have noted."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget what an earlier sweep in this folder noted."""
        _failed.clear()
        for path in Path(config.hydra.sweep.dir).rglob(NAME):
            path.unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the notes."""
        for path in sorted(Path(config.hydra.sweep.dir).rglob(NAME)):
            status, sentence = path.read_text(encoding="utf-8").split(" ", 1)
            _failed.append((path.parent, int(status), sentence.strip()))


def in_sweep() -> bool:
    """Whether the job that is under way is one of several."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def note(folder: Path, status: int, sentence: str) -> None:
    """Note why a job ended, for the end of its sweep."""
    if first_process():
        write_atomically(folder / NAME, f"{status} {sentence}\n")


def tell() -> int:
    """Name the jobs that failed, on standard error.

    Returns:
        The status of the sweep: 0, 1 if a job failed, 75 if all others stopped at a time limit.
    """
    failed, statuses = [*_failed], {status for _, status, _ in _failed}
    _failed.clear()
    if not failed:
        return 0
    if first_process():
        which = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
        sys.stderr.write(f"{which} of the sweep did not finish; the others are complete:\n")
        sys.stderr.writelines(f"  {folder}: {sentence}\n" for folder, _, sentence in failed)
    return UNFINISHED if statuses == {UNFINISHED} else WRONG
