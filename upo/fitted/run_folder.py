"""The model of a finished run of ``train.py``, from its run folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from upo.data.datamodule import RatingDataModule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.evaluation.protocols import Protocol
from upo.fitted.file import FILE, check_targets, targets
from upo.fitted.model import Fitted, load
from upo.fitted.settings import resolved
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.config import scheduled
from upo.tables.numbering import Ids
from upo.training.checkpoint import load_checked

_FILES = ("train", "test", "user_features", "item_features", "data_dir")


def load_model(folder: Path, *, log: Path | None = None, trusted: bool = False) -> Fitted:
    """The model of a run folder, or one that ``Fitted.save`` wrote.

    A run folder keeps networks and ids; its log is read again from where the run found it.

    Args:
        folder: Run folder, or the folder of a saved model.
        log: Where the log of ``dataset=table`` is now, if it was moved.
        trusted: Also build what is not of upo; its code is then run.

    Raises:
        InputError: If the run is not finished, the log is gone or has changed, or anything in the
            folder is damaged, unknown, or of another version.
    """
    if (folder / FILE).is_file():
        return load(folder, trusted=trusted)
    config = _config(folder)
    if log is not None:
        if "train" not in config.dataset:
            raise InputError(f"log={log} is for runs with dataset=table; leave it out.")
        config.dataset.train = str(log.resolve())
    if not trusted:
        _check_trust(config, folder)
    state = _last_state(config, folder)
    datamodule: RatingDataModule = instantiate(config.dataset)
    protocol: Protocol = instantiate(config.protocol)
    data = datamodule.data
    user_ids, item_ids = _ids(data, folder)
    space = PairSpace.of(datamodule.data, state["seeds"], protocol.holdout)
    estimator = build_estimator(config.estimator, space)
    try:
        estimator.load_state_dict(state["estimator"])
    except RuntimeError as error:
        raise InputError(
            f"{folder}: the networks have other sizes than the data of {data.name}, which has "
            "changed since the run; restore the data, or train again."
        ) from error
    results = folder / "results.csv"
    return Fitted(
        estimator,
        resolved(config),
        metrics=pd.read_csv(results) if results.is_file() else pd.DataFrame(),
        columns=(
            str(config.dataset.get("user_column", "user")),
            str(config.dataset.get("item_column", "item")),
        ),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _config(folder: Path) -> DictConfig:
    """The composed configuration, with files where they were seen from the run's own folder."""
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise InputError(
            f"run={folder} is no folder of a run or a saved model ({path} and {FILE} are missing); "
            "give the folder that train.py or .save wrote to."
        )
    try:
        config = OmegaConf.load(path)
        run = path.with_name("hydra.yaml")
        cwd = OmegaConf.select(OmegaConf.load(run), "hydra.runtime.cwd") if run.is_file() else "."
        assert isinstance(config, DictConfig)
        needed = {"dataset", "estimator", "protocol", "paths"} - set(map(str, config))
        if needed:
            raise ValueError(f"it lacks {', '.join(sorted(needed))}")
        config.paths.data_dir = str(Path(cwd) / config.paths.data_dir)
        for key in _FILES:
            value = config.dataset.get(key)
            if value is not None:
                config.dataset[key] = str(Path(cwd) / str(value))
    except (OmegaConfBaseException, OSError, ValueError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or ["not a mapping"])[0]
        raise InputError(f"{path} cannot be read ({reason}); restore it or train again.") from error
    except Exception as error:  # the YAML reader has exceptions of its own
        raise InputError(f"{path} is not a readable YAML file; restore it.") from error
    return config


def _check_trust(config: DictConfig, folder: Path) -> None:
    """Only datasets, protocols and networks of upo are built from a file."""
    path, remedy = folder / ".hydra" / "config.yaml", "trusted=true"
    check_targets(config.estimator, path, remedy)
    for part, home in (("dataset", "upo.data."), ("protocol", "upo.evaluation.protocols.")):
        tree = OmegaConf.to_container(config[part], resolve=True)
        for target in targets(tree):
            name = target.removeprefix(home).rpartition(".")[2]
            if not target.startswith(home) or not name[:1].isupper():
                raise InputError(
                    f"{path} would build {target}, which is not of {home[:-1]}; if you trust the "
                    f"file, {remedy}."
                )


def _last_state(config: DictConfig, folder: Path) -> dict[str, Any]:
    """The checkpoint of the last stage, with all that the stages before it left."""
    stages = scheduled(config.estimator)
    for stage in stages:
        path = folder / "checkpoints" / f"{stage}.pt"
        state = load_checked(path) if path.is_file() else {"done": False}
        if not state["done"]:
            raise InputError(
                f"run={folder} is not finished: stage {stage} of {', '.join(stages)} has no "
                f"complete checkpoint; finish it with python train.py resume={folder}."
            )
    return state


def _ids(data: RatingData, folder: Path) -> tuple[Ids, Ids]:
    """Ids by index; datasets that keep none have their indices, from 0.

    Raises:
        InputError: If the run's own maps differ: the log has changed.
    """
    found = []
    sizes = (data.train.n_users, data.train.n_items)
    pairs = (("users.csv", data.user_ids), ("items.csv", data.item_ids))
    for (name, ids), size in zip(pairs, sizes, strict=True):
        now = np.arange(size) if ids is None else ids
        if (folder / name).is_file():
            then = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
            if "id" not in then or then["id"].tolist() != [str(x) for x in now.tolist()]:
                raise InputError(
                    f"{folder / name} lists other ids than {data.name} has now; restore the log "
                    "that the run was trained on (log=FILE if it was moved), or train again."
                )
        found.append(now)
    for side, more in enumerate((data.unrated_users, data.unrated_items)):
        if more is not None:
            found[side] = np.concatenate([found[side], more.ids])
    return found[0], found[1]
