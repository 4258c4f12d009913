"""``upo train`` and ``train.py``: compose, run, write, print."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from upo.core.console import (
    UNFINISHED,
    WRONG,
    advice,
    first_process,
    one_line,
    quiet,
    say,
    sentences,
)
from upo.core.files import write_atomically
from upo.core.locks import NAME as LOCK
from upo.core.locks import locked
from upo.core.transcript import LOG, copied_to
from upo.errors import InputError, UnfinishedError
from upo.runs.compose import check_choices, composed, conf_dir, search_path
from upo.runs.finished import finish, finished
from upo.runs.folder import run
from upo.runs.jobs import in_sweep, note, tell
from upo.runs.overrides import prepared, train_help
from upo.runs.places import given_folder
from upo.runs.results import Row, side_by_side, summarize
from upo.runs.resumed import SETTINGS, check_same, recorded
from upo.runs.tuned import GROUP, of_other_logs, of_target, words_for
from upo.training.settings import alone, place
from upo.training.trainer import settle


def job(config: DictConfig) -> float:
    """What Hydra calls for each run; returns the mean AUC for sweepers, NaN if the run failed."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with copied_to(folder / LOG) if _writes(config) else nullcontext():
        try:
            return float(sentences(lambda: task(config, folder)))
        except SystemExit as stop:
            if stop.code not in (WRONG, UNFINISHED) or not _costs_only_itself(config):
                raise
            note(folder, int(stop.code), stop.__notes__[0])
        except Exception as error:
            if not _costs_only_itself(config):
                raise
            sys.stderr.write(traceback.format_exc())
            kind = type(error).__name__
            note(folder, WRONG, one_line(f"{kind}: {error} (a traceback is in {LOG})"))
    return float("nan")


def _costs_only_itself(config: DictConfig) -> bool:
    """Whether a job may fail and the next one begin.

    Processes that have met must fail together: one that went on would wait for the others.
    """
    return in_sweep() and (alone(config.trainer) or not torch.distributed.is_initialized())


def _writes(config: DictConfig) -> bool:
    """Whether this is the process of its run that writes."""
    try:
        return place(config.trainer) == 0
    except (InputError, ValueError):  # said by the run itself
        return True


def task(config: DictConfig, folder: Path) -> float:
    """One run and its folder, which no other process uses meanwhile; returns the mean AUC."""
    settle(config.trainer)
    with (
        locked(folder / LOCK, f"the run folder {folder}", "wait for it, or choose another folder")
        if first_process()
        else nullcontext(),
        advice(f"resume={folder} goes on from the last epoch"),
    ):
        return _task(config, folder)


def _task(config: DictConfig, folder: Path) -> float:
    active = HydraConfig.get()
    other = None
    if config.compare_with is not None:  # composed first: what is wrong with it shows at once
        given = [o for o in active.overrides.task if not o.startswith(("compare_with=", "resume="))]
        overrides = [*given, "compare_with=null", "logger=none", f"estimator={config.compare_with}"]
        other = composed([*search_path(active.overrides.hydra), *overrides])
        other.resume = config.resume
    if config.resume:
        check_same(folder, config)
    rows = _kept(config, folder) if config.keep else run(config, folder)
    if other is not None:
        others = _second(other, folder / str(config.compare_with))
        say("\n" + side_by_side([rows, others]))
    means = summarize(rows)
    return means["auc"]["mean"] if "auc" in means else float("nan")


def _second(config: DictConfig, folder: Path) -> list[Row]:
    """A run in the folder of another one, resumed where that is and it had begun."""
    if config.resume and (folder / SETTINGS).exists():
        check_same(folder, config)
    elif first_process():
        write_atomically(folder / SETTINGS, OmegaConf.to_yaml(config))
    try:
        return run(config, folder)
    except UnfinishedError as error:  # it is resumed with the first
        said = str(error).replace(f"resume={folder}", f"resume={folder.parent}")
        raise UnfinishedError(said) from error


def _kept(config: DictConfig, folder: Path) -> list[Row]:
    """The rows of a finished run of this configuration, or of a new run."""
    rows = finished(folder, config)
    if rows is None:
        rows = run(config, folder)
        if first_process():
            finish(folder, config)
        return rows
    say(f"{folder} holds a finished run of this configuration, which is kept.")
    return rows


def _resume(argv: list[str]) -> None:
    """Turn ``resume=RUN_DIR`` into the overrides of that run, with its folder as the run folder.

    Raises:
        InputError: If there is no run in that folder, or its record sets more than our own keys.
    """
    # a process that the first one started with its own arguments; torchrun starts all of them alike
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    given = [a.removeprefix("resume=") for a in argv[1:] if a.startswith("resume=")]
    if any(folder.strip("'\" ") == "" for folder in given):
        raise InputError(
            "resume= is empty, as from a variable that is not set; give a run folder, or leave it "
            "out to start anew."
        )
    if not given or given[0] == "null":
        return
    folder = Path(given[0]).resolve()
    before = recorded(folder, argv[1:])
    now = [a for a in argv[1:] if not a.startswith(("resume=", "hydra.run.dir="))]
    quoted = str(folder).replace("'", "\\'")
    argv[1:] = [*before, *now, f"resume='{quoted}'", f"hydra.run.dir='{quoted}'"]
    argv.append("hydra.output_subdir=null")  # the record of the first start stays as it is


def _check_choices(argv: list[str]) -> None:
    """Refuse unknown names at once; Hydra would at the first run that has one, and at length."""
    if not any(word.startswith(("--config", "-c")) for word in argv[1:]):
        check_choices(
            [word for word in argv[1:] if "=" in word and not word.startswith(("-", "~"))]
        )


def _tuned(argv: list[str]) -> None:
    """For a run on a table, take up the values that were tuned on its log, and no others."""
    words = [w for w in argv[1:] if not w.startswith(("-", "hydra.", "hydra/"))]
    known = any(word.startswith("-") or GROUP in word for word in argv[1:])
    if known:
        return
    if "dataset=table" not in words:
        argv += of_target([*search_path(argv), *words])
        return
    config = composed([*search_path(argv), *words])
    if not of_other_logs(config):
        return
    found, said = words_for(config, instantiate(config.dataset).data)
    argv += found
    if said is not None:
        say(said)


def _note_once(argv: list[str]) -> None:
    """Let the first process alone write Hydra's record and log of a run."""
    numbers = (os.environ.get(k, "0") for k in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))
    if all(number == "0" for number in numbers):
        return
    words = [word for word in argv[1:] if not word.startswith(("-", "hydra.", "hydra/"))]
    try:  # a number counts only in a run of several processes
        second = place(composed([*search_path(argv), *words]).trainer) > 0
    except (HydraException, OmegaConfBaseException, InputError):
        return  # said again, as a sentence, when the run is composed
    if second:
        argv += ["hydra.output_subdir=null", "hydra/job_logging=stdout"]


def train(words: Sequence[str]) -> None:
    """``upo train``, with the configuration that comes with the package."""
    run_train(words, called="train")


def main() -> None:
    """``train.py``: the words of ``sys.argv``, a sentence for what is wrong with them."""
    sentences(lambda: run_train(sys.argv[1:]))


def run_train(words: Sequence[str], *, called: str = "") -> None:
    """Compose and run what the words say.

    Args:
        words: Overrides and Hydra's flags.
        called: Word that names this command in ``sys.argv``, for processes started from it.
    """
    if any(word in ("--help", "-h") for word in words):
        sys.stdout.write(train_help())
        return
    quiet()
    program = sys.argv[0]
    several = [word for word in words if word in ("-m", "--multirun")]
    rest = [word for word in words if word not in several]
    argv = [program, *several, *prepared(rest)]  # Hydra knows no flag between overrides
    _resume(argv)
    _check_choices(argv)
    _tuned(argv)
    _note_once(argv)
    sys.argv = argv
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come to us, not to a traceback
    again = [program, *([called] if called else []), *argv[1:]]

    def started(config: DictConfig) -> float:
        quiet()  # a launcher may have started another process for the job
        sys.argv = [*again]  # which Lightning calls for further processes
        if in_sweep():
            sys.argv.append(f"hydra.sweep.dir={HydraConfig.get().sweep.dir}")
        return job(config)

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(started)()
    except OSError as error:  # in a file of Hydra's
        if error.filename is None:
            error.filename = given_folder(argv)
        raise
    status = tell()
    if status:
        raise SystemExit(status)
