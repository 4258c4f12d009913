"""The schema of ``conf/train.yaml`` and the checks that need more than one key."""

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from upo.core.arguments import nearest
from upo.core.given import path_of
from upo.errors import InputError
from upo.runs.known_settings import check_settings


@dataclass
class Paths:
    """Folders."""

    data_dir: str = "data"


@dataclass
class Propensity:
    """What is done with any learned propensity; which one is learned says the group."""

    calibrate: str = "none"
    folds: int = 5
    withhold: float = 0.0


@dataclass
class SearchBudget:
    """What the search cost that the values in use come from, and what it said of them."""

    trials: int = 0
    seeds: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Train:
    """Top-level keys of a run; wrong types and unknown keys fail while composing."""

    dataset: Any = MISSING
    estimator: Any = MISSING
    protocol: Any = MISSING
    trainer: Any = MISSING
    logger: Any = None
    propensity: Propensity = field(default_factory=Propensity)
    budget: SearchBudget = field(default_factory=SearchBudget)
    seeds: Any = 1
    diagnostics: Any = "correct"
    resume: str | None = None
    compare_with: str | None = None
    keep: bool = False
    auto: bool = False
    refit: bool = False
    compile: Any = "auto"
    progress: bool = True
    figures: bool = True
    paths: Paths = field(default_factory=Paths)


ConfigStore.instance().store(name="schema", node=Train)


PHASES = ("first", "then", "last")  # of the propensity, of the prediction, of a variant


def scheduled(estimator: DictConfig) -> list[str]:
    """Names of the stages in the order in which they run; those that are null are left out.

    The order is that of ``schedule.first``, ``then`` and ``last``. Runs of before there was a
    schedule have the order of their keys.

    Args:
        estimator: ``cfg.estimator``.

    Raises:
        InputError: If the schedule and the stages name different ones.
    """
    plans = [str(name) for name, plan in estimator.stages.items() if plan is not None]
    schedule = estimator.get("schedule")
    if schedule is None:
        return plans
    named = [str(name) for phase in PHASES for name in schedule.get(phase) or []]
    unknown = [name for name in named if name not in estimator.stages]
    if unknown or len(set(named)) < len(named) or not set(plans) <= set(named):
        raise InputError(
            f"estimator.schedule of {estimator.name} runs {named}, estimator.stages defines "
            f"{list(estimator.stages)}; name each stage once, in schedule.first, then or last."
        )
    return [name for name in named if name in plans]


def target_name(estimator: Any) -> str:
    """What an estimator predicts; configurations of before there were targets say nothing.

    Args:
        estimator: ``cfg.estimator``.
    """
    return str(estimator.get("target") or "positive")


def check(config: DictConfig) -> None:
    """Check rules across keys, before any data is read.

    Raises:
        InputError: If a key is unknown, a stage is missing, a network has no learner to use it, or
            a part needs probabilities that the target has not.
    """
    known = [each.name for each in fields(Train)]
    for key in map(str, config):
        if key not in known:  # a plus lets Hydra take any
            near = nearest(key, known)
            meant = f"did you mean {near}? K" if near else "k"
            raise InputError(f"{key} is no setting of a run; {meant}nown are {', '.join(known)}.")
    if OmegaConf.is_missing(config.dataset, "train"):
        raise InputError(
            "dataset=table needs dataset.train=FILE: a CSV or Parquet file with a user, an item "
            "and a rating in each row."
        )
    path_of("paths.data_dir (by default $UPO_DATA_DIR)", config.paths.data_dir)
    check_settings(config)
    estimator = config.estimator
    if not any(estimator.stages[name].module == "debiasing" for name in scheduled(estimator)):
        raise InputError(
            f"estimator {estimator.name} has no debiasing stage; estimator.stages needs one whose "
            "module is 'debiasing'."
        )
    needs = estimator.get("needs_probability")
    if needs and target_name(estimator) != "positive":
        why = "; ".join(str(reason) for reason in needs.values())
        raise InputError(
            f"estimator {estimator.name} cannot have target={target_name(estimator)}: {why}; use "
            "target=positive, or another part: objective=naive, ips, snips or dr, and "
            "imputation=jl, ce or constant."
        )
    weighting = estimator.get("weighting")
    if weighting is not None and "propensity" not in estimator.networks:
        raise InputError(
            f"estimator {estimator.name} weights by propensities but has no propensity network; "
            "choose another propensity=, for example propensity=additive."
        )
