"""The schema of ``conf/train.yaml`` and the checks that need more than one key."""

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from upo.core.arguments import nearest
from upo.errors import InputError


@dataclass
class Paths:
    """Folders."""

    data_dir: str = "data"


@dataclass
class Train:
    """Top-level keys of a run; wrong types and unknown keys fail while composing."""

    dataset: Any = MISSING
    estimator: Any = MISSING
    protocol: Any = MISSING
    trainer: Any = MISSING
    logger: Any = None
    seeds: Any = 1
    diagnostics: Any = "correct"
    resume: str | None = None
    compare_with: str | None = None
    keep: bool = False
    compile: Any = "auto"
    progress: bool = True
    figures: bool = True
    paths: Paths = field(default_factory=Paths)


ConfigStore.instance().store(name="schema", node=Train)


def check(config: DictConfig) -> None:
    """Check rules across keys, before any data is read.

    Raises:
        InputError: If a key is unknown, a stage is missing, or a network has no learner to use it.
    """
    known = [each.name for each in fields(Train)]
    for key in map(str, config):
        if key not in known:  # a plus lets Hydra take any
            near = nearest(key, known)
            meant = f"did you mean {near}? K" if near else "k"
            raise InputError(f"{key} is no setting of a run; {meant}nown are {', '.join(known)}.")
    estimator = config.estimator
    stages = {name: node for name, node in estimator.stages.items() if node is not None}
    if not any(node.module == "debiasing" for node in stages.values()):
        raise InputError(
            f"estimator {estimator.name} has no debiasing stage; estimator.stages needs one whose "
            "module is 'debiasing'."
        )
    weighting = estimator.get("weighting")
    if weighting is not None and "propensity" not in estimator.networks:
        raise InputError(
            f"estimator {estimator.name} weights by propensities but has no propensity network; "
            "choose another propensity=, for example propensity=additive."
        )
