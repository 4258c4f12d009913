"""Finished runs that need not be repeated: same configuration, results complete."""

import csv
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from upo.core.files import write_atomically
from upo.runs.by_user import GROUPS, USERS
from upo.runs.results import Row
from upo.training.settings import trial_steps

NAME = "config.yaml"  # the resolved configuration, written after everything else
WRITTEN = (NAME, "results.csv", "summary.json", USERS, GROUPS)


def finished(folder: Path, config: DictConfig) -> list[Row] | None:
    """Rows of a finished run of the same configuration, if there is one.

    Args:
        folder: Run folder.
        config: Composed configuration.
    """
    saved, rows = folder / NAME, folder / "results.csv"
    if not (saved.is_file() and rows.is_file()):
        return None
    if saved.read_text(encoding="utf-8") != OmegaConf.to_yaml(config, resolve=True):
        return None
    with rows.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def begin(folder: Path) -> None:
    """Forget an earlier run in this folder before another one starts there."""
    for path in (*(folder / name for name in WRITTEN), *folder.glob("checkpoints/*.pt")):
        path.unlink(missing_ok=True)


def finish(folder: Path, config: DictConfig) -> None:
    """Note that the run of this configuration is complete; a trial never is."""
    if trial_steps(config.trainer):
        return
    write_atomically(folder / NAME, OmegaConf.to_yaml(config, resolve=True))
