"""``python train.py``: compose, run, write, print; a wrong input ends in one sentence."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from upo import run_figures
from upo.data.rating_data import report
from upo.data.table import write_id_maps
from upo.distributed import rank
from upo.errors import InputError
from upo.experiment import Experiment, RunResult
from upo.loggers import log_final, make_loggers
from upo.results import Row, summarize, table, write_rows, write_summary


def say(text: str) -> None:
    """Print for the person at the terminal, once however many processes run."""
    if rank() == 0 and os.environ.get("LOCAL_RANK", "0") == "0":
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def run(config: DictConfig, folder: Path, *, choices: dict[str, str]) -> list[Row]:
    """One run, from a composed configuration to its run folder.

    Args:
        config: Composed configuration.
        folder: Run folder.
        choices: Names of the chosen dataset, estimator and protocol.

    Returns:
        A row of results for each seed.
    """
    experiment = Experiment(config, folder, progress=config.progress)
    say(f"Results will land in {folder}")
    data = experiment.datamodule.data
    say(report(data))
    if data.user_ids is not None:
        write_id_maps(data, folder)
    experiment.loggers = make_loggers(config)
    result = experiment.run()
    rows = result_rows(result, experiment, choices)
    if rank() == 0:
        _write(result, rows, experiment, folder)
    return rows


def result_rows(result: RunResult, experiment: Experiment, choices: dict[str, str]) -> list[Row]:
    """A row for each seed, columns as in the run folder's contract."""
    best = result.stages[-1].best_epoch
    rows = []
    for r, seed in enumerate(result.seeds):
        row: Row = {
            "dataset": experiment.datamodule.name,
            "estimator": experiment.config.estimator.name,
            "protocol": experiment.protocol.label,
            "seed": seed,
        }
        row |= {name: float(values[r]) for name, values in result.metrics.items()}
        for name in ("ece", "bmse", "dr_bias", "dr_variance"):
            row.setdefault(name, float("nan"))  # no propensity, nothing to diagnose
        row["best_epoch"] = -1 if best is None else int(best[r])
        row["parameters"] = result.estimator.parameters_per_replica
        row["train_seconds"] = round(result.seconds, 3)
        rows.append(row)
    return rows


def _write(result: RunResult, rows: list[Row], experiment: Experiment, folder: Path) -> None:
    first = rows[0]
    title = f"{first['dataset']}, {first['estimator']}, {first['protocol']}"
    write_rows(folder / "results.csv", rows)
    write_summary(
        folder / "summary.json",
        rows,
        {"test_selected": experiment.protocol.test_selected, "folder": folder.name},
    )
    drawn = {}
    if experiment.config.figures:
        drawn = run_figures.draw(result, folder / "figures", title)
    means = {name: value["mean"] for name, value in summarize(rows).items()}
    log_final(experiment.loggers, means, drawn)
    say("\n" + table(rows, title=title))
    say(f"Results, checkpoints and figures: {folder}")


def task(config: DictConfig) -> float:
    """What Hydra calls for each job; returns the monitored mean for sweepers."""
    active = HydraConfig.get()
    choices = {key: str(active.runtime.choices[key]) for key in ("dataset", "estimator", "protocol")}
    rows = run(config, Path(active.runtime.output_dir), choices=choices)
    means = summarize(rows)
    return means["auc"]["mean"] if "auc" in means else float("nan")


def sentences(function: Callable[[], Any]) -> Any:
    """Call a function; whatever a person can mend ends in one sentence and exit status 1."""
    try:
        return function()
    except (
        InputError,
        HydraException,
        OmegaConfBaseException,
        MisconfigurationException,
        OSError,
    ) as error:
        message = " ".join(str(_cause(error)).split()) or type(error).__name__
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; what was written is complete.\n")
        raise SystemExit(130) from None


def _cause(error: BaseException) -> BaseException:
    """The innermost cause that is meant for a person."""
    cause: BaseException | None = error
    found = error
    while cause is not None:
        if isinstance(cause, InputError):
            found = cause
        cause = cause.__cause__
    return found


def _take_up(argv: list[str]) -> None:
    """Turn ``resume=RUN_DIR`` into the overrides of that run, with its folder as the run folder.

    Raises:
        InputError: If there is no run in that folder.
    """
    given = [a.removeprefix("resume=") for a in argv[1:] if a.startswith("resume=")]
    if not given or given[0] in ("", "null"):
        return
    folder = Path(given[0]).resolve()
    saved = folder / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise InputError(f"resume={given[0]}: no run was started there ({saved} is missing).")
    before = [o for o in OmegaConf.to_object(OmegaConf.load(saved)) if "resume=" not in o]
    now = [a for a in argv[1:] if not a.startswith(("resume=", "hydra.run.dir="))]
    quoted = str(folder).replace("'", "\\'")
    argv[1:] = [*before, *now, f"resume='{quoted}'", f"hydra.run.dir='{quoted}'"]


def quiet() -> None:
    """Silence what libraries say about themselves."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\\..*")
    warnings.filterwarnings("ignore", module=r"torchmetrics\\..*")


def main(config_path: str) -> None:
    """Entry point of ``train.py``.

    Args:
        config_path: Absolute path of the configuration folder.
    """
    quiet()
    sentences(lambda: _take_up(sys.argv))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come to us, not to a traceback
    decorated = hydra.main(version_base="1.3", config_path=config_path, config_name="train")(task)
    sentences(decorated)
