"""``python train.py``: compose, run, write, print; a wrong input ends in one sentence."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from upo.core.console import first_process, quiet, say, sentences
from upo.errors import InputError
from upo.runs.finished import begin, finish, finished
from upo.runs.folder import run
from upo.runs.results import Row, side_by_side, summarize


def task(config: DictConfig) -> float:
    """What Hydra calls for each job; returns the mean AUC for sweepers."""
    active = HydraConfig.get()
    folder = Path(active.runtime.output_dir)
    other = None
    if config.compare_with is not None:  # composed first: what is wrong with it shows at once
        given = [o for o in active.overrides.task if not o.startswith(("compare_with=", "resume="))]
        overrides = [*given, "compare_with=null", "logger=none", f"estimator={config.compare_with}"]
        other = hydra.compose("train", overrides=overrides)
    rows = _kept(config, folder) if config.keep else run(config, folder)
    if other is not None:
        others = run(other, folder / str(config.compare_with))
        say("\n" + side_by_side([rows, others]))
    means = summarize(rows)
    return means["auc"]["mean"] if "auc" in means else float("nan")


def _kept(config: DictConfig, folder: Path) -> list[Row]:
    """The rows of a finished run of this configuration, or of a new run."""
    rows = finished(folder, config)
    if rows is None:
        if first_process():
            begin(folder)
        rows = run(config, folder)
        if first_process():
            finish(folder, config)
        return rows
    say(f"{folder} holds a finished run of this configuration, which is kept.")
    return rows


def _take_up(argv: list[str]) -> None:
    """Turn ``resume=RUN_DIR`` into the overrides of that run, with its folder as the run folder.

    Raises:
        InputError: If there is no run in that folder.
    """
    # a process that the first one started with its own arguments; torchrun starts all of them alike
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    given = [a.removeprefix("resume=") for a in argv[1:] if a.startswith("resume=")]
    if not given or given[0] in ("", "null"):
        return
    folder = Path(given[0]).resolve()
    saved = folder / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise InputError(f"resume={given[0]}: no run was started there ({saved} is missing).")
    overrides: Any = OmegaConf.to_container(OmegaConf.load(saved))
    if not isinstance(overrides, list):  # killed before the first start had written it
        raise InputError(f"resume={given[0]}: {saved} is empty or damaged; run anew.")
    before = [str(o) for o in overrides if not str(o).startswith("resume=")]
    now = [a for a in argv[1:] if not a.startswith(("resume=", "hydra.run.dir="))]
    quoted = str(folder).replace("'", "\\'")
    argv[1:] = [*before, *now, f"resume='{quoted}'", f"hydra.run.dir='{quoted}'"]
    argv.append("hydra.output_subdir=null")  # the record of the first start stays as it is


def _check_choices(argv: list[str], conf: Path) -> None:
    """Refuse names that a configuration group does not have, which Hydra answers at length.

    Raises:
        InputError: If there is one.
    """
    for word in argv[1:]:
        group, equals, value = word.partition("=")
        names = value.split(",")
        if not (equals and (conf / group).is_dir() and group.isidentifier()):
            continue
        known = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        for name in names:
            if re.fullmatch(r"[\w.-]+", name) and name not in (*known, "null"):
                raise InputError(f"{group}={name} is unknown; known are {', '.join(known)}.")


def _note_once(argv: list[str]) -> None:
    """Let the first process alone write Hydra's record and log of a run."""
    number = next(
        (os.environ[k] for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if k in os.environ), "0"
    )
    if number != "0":
        argv += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]


def main(config_path: str) -> None:
    """Entry point of ``train.py``.

    Args:
        config_path: Absolute path of the configuration folder.
    """
    quiet()
    sentences(lambda: _take_up(sys.argv))
    sentences(lambda: _check_choices(sys.argv, Path(config_path)))
    _note_once(sys.argv)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come to us, not to a traceback

    def job(config: DictConfig) -> Any:
        quiet()  # a launcher may have started another process for the job
        return sentences(lambda: task(config))

    sentences(hydra.main(version_base="1.3", config_path=config_path, config_name="train")(job))
