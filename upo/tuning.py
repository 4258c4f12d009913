"""Tune one estimator: ``python -m upo.tuning dataset=coat estimator=upo_dr protocol=holdout``.

Optuna proposes trials in batches; a batch rides on the replica axis of one run, so it costs little
more than one trial. Trials are judged by the protocol's own selection metric at their best epoch,
never by the test set unless the protocol says so. The winner is written to ``conf/tuned``, from
where the same protocol, dataset and estimator pick it up.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, FloatDistribution
from tqdm.auto import tqdm

from upo.benchmark import CONF
from upo.core.console import quiet, sentences
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.runs.experiment import Experiment

QUIET = ["logger=none", "progress=false", "figures=false"]
OPTIONS = ("search", "trials", "batch", "out")


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
    options = dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in OPTIONS)
    overrides = [a for a in arguments if a.split("=", 1)[0] not in OPTIONS]
    search = _search(options)
    base = _compose([*overrides, *QUIET])
    taken = {o.split("=", 1)[0].lstrip("+") for o in overrides}
    keys = {key: v for key, v in search.space.items() if _has(base, str(key)) and key not in taken}
    fixed = {key: v for key, v in search.fixed.items() if _has(base, str(key)) and key not in taken}
    if not keys:
        raise InputError("Nothing is left to search: every key of the search is overridden.")
    space: dict[str, BaseDistribution] = {
        str(key): FloatDistribution(low, high, log=kind == "log")
        for key, (low, high, kind) in keys.items()
    }
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
    return _write(study, base, options.get("out"), len(study.trials))


def _search(options: Mapping[str, str]) -> DictConfig:
    path = CONF / "search" / f"{options.get('search', 'default')}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise InputError(f"search={options['search']} is not one of {', '.join(known)}.")
    counts = [f"{key}={options[key]}" for key in ("trials", "batch") if key in options]
    merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(counts))
    assert isinstance(merged, DictConfig)  # the file is a mapping
    return merged


def _has(config: DictConfig, key: str) -> bool:
    return OmegaConf.select(config, key) is not None


def _compose(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def _judge(
    overrides: Sequence[str],
    fixed: Mapping[Any, Any],
    trials: Sequence[Mapping[str, float]],
    seeds: int,
) -> list[float]:
    """Selection value of each trial, lower is better, mean over its seeds."""
    config = _compose([*overrides, *QUIET])
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


def _write(study: optuna.Study, base: DictConfig, out: str | None, trials: int) -> Path:
    best = study.best_trial
    values = {**best.user_attrs["fixed"], **{k: float(f"{v:.3g}") for k, v in best.params.items()}}
    tree: Any = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(tree, str(key), value)
    protocol = str(base.protocol.name)
    folder = Path(out) if out else CONF / "tuned"
    path = folder / protocol / str(base.dataset.name) / f"{base.estimator.name}.yaml"
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


if __name__ == "__main__":
    quiet()
    sentences(lambda: tune(sys.argv[1:]))
