"""Tune one estimator: ``python -m upo.tuning dataset=coat estimator=upo_dr protocol=holdout``.

Optuna proposes trials in batches; a batch rides on the replica axis of one run, so it costs little
more than one trial. Trials are judged by the protocol's own selection metric at their best epoch,
never by the test set unless the protocol says so. The winner is written to ``tuned/`` in the user's
configuration folder (``UPO_CONFIG_DIR``), which runs of the same protocol, dataset and estimator
look up before the values that come with upo.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, FloatDistribution
from tqdm.auto import tqdm

from upo.core.arguments import Command, argument
from upo.core.console import command, quiet
from upo.core.files import write_atomically
from upo.core.locks import locked
from upo.errors import InputError
from upo.runs.compose import choices, chosen, composed, search_path, user_dir
from upo.runs.experiment import Experiment
from upo.runs.overrides import ABOUT_OVERRIDES, settings_of_runs

QUIET = ["logger=none", "progress=false", "figures=false"]


@dataclass(frozen=True)
class Settings:
    """What the command line takes beside the settings of the runs."""

    search: str = argument("the space to search, a file of conf/search", default="default")
    trials: int | None = argument("how many; the search says if not given", default=None, value="N")
    batch: int | None = argument(
        "trials that train together, as replicas; the search says if not given",
        default=None,
        value="N",
    )
    out: Path | None = argument(
        "where the winner is written, instead of where later runs pick it up",
        default=None,
        value="FOLDER",
    )


COMMAND = Command(
    "tune",
    "Search hyperparameters of an estimator, judged as the protocol judges epochs",
    Settings,
    ("dataset=coat estimator=upo_dr", "dataset=coat estimator=ips trials=64 batch=16 out=FOLDER"),
    rest=f"{ABOUT_OVERRIDES} Keys given so are not searched.",
    module="upo.tuning",
)
_OURS = {
    "logger": "trials are not logged; upo train logs one run",
    "resume": "a search starts anew",
    "keep": "a search starts anew",
    "compare_with": "one estimator is tuned at a time",
    "figures": "trials draw none",
    "trainer.fast_dev_run": "trials=4 batch=4 is a short search",
    "trainer.max_time": "trials=N says how long a search takes",
}


def tune(arguments: Sequence[str]) -> Path:
    """Search, report and write the winner.

    Args:
        arguments: ``search=NAME``, ``trials=``, ``batch=``, ``out=FOLDER`` and overrides of
            ``train.py``; overridden keys are not searched.

    Returns:
        The file that was written.

    Raises:
        InputError: If the search does not exist or nothing is left to search.
    """
    given, rest = COMMAND.parse(arguments)
    overrides = settings_of_runs(rest, "tune", _OURS)
    search = _search(given, overrides)
    base = composed([*overrides, *QUIET])
    taken = {o.split("=", 1)[0].lstrip("+") for o in overrides}
    keys = {key: v for key, v in search.space.items() if _has(base, str(key)) and key not in taken}
    fixed = {key: v for key, v in search.fixed.items() if _has(base, str(key)) and key not in taken}
    if not keys:
        raise InputError("Nothing is left to search: every key of the search is overridden.")
    space: dict[str, BaseDistribution] = {
        str(key): FloatDistribution(low, high, log=kind == "log")
        for key, (low, high, kind) in keys.items()
    }
    path = _target(base, given.out)
    lock = path.with_name(f".{path.name}.lock")
    with locked(lock, f"the search for {path}", "wait for it, or choose another out="):
        study = _study(base, search, space, fixed, overrides)
        return _write(study, path, str(base.protocol.name))


def _study(
    base: DictConfig,
    search: DictConfig,
    space: dict[str, BaseDistribution],
    fixed: Mapping[Any, Any],
    overrides: Sequence[str],
) -> optuna.Study:
    """All trials, a batch at a time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    bar = tqdm(range(0, search.trials, search.batch), unit="batch", desc=str(base.estimator.name))
    for number, first in enumerate(bar):
        size = min(search.batch, search.trials - first)
        chosen = {key: values[number % len(values)] for key, values in fixed.items()}
        trials = [study.ask(space) for _ in range(size)]
        for trial in trials:
            trial.set_user_attr("fixed", chosen)
        values = _judge(overrides, chosen, [trial.params for trial in trials], search.seeds)
        for trial, value in zip(trials, values, strict=True):
            study.tell(trial, value)
        bar.set_postfix(best=f"{study.best_value:.5f}")
    return study


def _target(base: DictConfig, out: Path | None) -> Path:
    """The file of the winner."""
    folder = out if out is not None else user_dir() / "tuned"
    parts = base.protocol.name, base.dataset.name, base.estimator.backbone
    return folder.joinpath(*map(str, parts), f"{base.estimator.name}.yaml")


def _search(given: Settings, overrides: Sequence[str]) -> DictConfig:
    chosen("search", given.search, choices("search", overrides))
    found = composed(search_path(overrides), f"search/{given.search}").search
    counts = {key: getattr(given, key) for key in ("trials", "batch")}
    wrong = [key for key, count in counts.items() if count is not None and count < 1]
    if wrong:
        raise InputError(f"{wrong[0]} must be at least 1, got {counts[wrong[0]]}; try 16.")
    changed = {key: count for key, count in counts.items() if count is not None}
    merged = OmegaConf.merge(found, changed)
    assert isinstance(merged, DictConfig)  # the file is a mapping
    return merged


def _has(config: DictConfig, key: str) -> bool:
    return OmegaConf.select(config, key) is not None


def _judge(
    overrides: Sequence[str],
    fixed: Mapping[Any, Any],
    trials: Sequence[Mapping[str, float]],
    seeds: int,
) -> list[float]:
    """Selection value of each trial, lower is better, mean over its seeds."""
    config = composed([*overrides, *QUIET])
    for key, value in fixed.items():
        OmegaConf.update(config, str(key), value)
    for key in trials[0]:
        stacked = [trial[key] for trial in trials for _ in range(seeds)]
        OmegaConf.update(config, key, stacked)
    repeated = [seed for _ in trials for seed in range(seeds)]  # the same for every trial
    experiment = Experiment(config, seeds=repeated, progress=False)
    best = experiment.run(measure=False).stages[-1].best
    assert best is not None  # a debiasing stage selects
    return [float(v) for v in best.view(len(trials), seeds).double().mean(-1)]


def _write(study: optuna.Study, path: Path, protocol: str) -> Path:
    best, trials = study.best_trial, len(study.trials)
    values = {**best.user_attrs["fixed"], **{k: float(f"{v:.3g}") for k, v in best.params.items()}}
    tree: Any = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(tree, str(key), value)
    head = (
        "# @package _global_\n"
        f"# Written by upo.tuning: best of {trials} trials, protocol={protocol}, "
        f"selection value {best.value:.5f}.\n"
    )
    write_atomically(path, head + OmegaConf.to_yaml(tree))
    sys.stdout.write(
        f"Best of {trials} trials: {best.value:.5f}\n{OmegaConf.to_yaml(tree)}{path}\n"
    )
    return path


def main(words: Sequence[str]) -> None:
    """The command."""
    tune(words)


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
