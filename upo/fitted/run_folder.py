"""The model of a finished run of ``train.py``, from its run folder."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from upo.core.budget import Budget
from upo.core.given import path_of
from upo.core.optim import part_of_stack
from upo.core.yaml_files import YamlError, followed, read_yaml
from upo.data.datamodule import RatingDataModule
from upo.data.rating_data import RatingData, report
from upo.errors import InputError, visible
from upo.evaluation.protocols import Protocol
from upo.fitted.content import ContentError, as_wide, check_seeds
from upo.fitted.file import FILE, damaged, stranger
from upo.fitted.model import Fitted
from upo.fitted.model import load as load_saved
from upo.fitted.parts import ForeignPartError, build
from upo.fitted.settings import resolved
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.config import scheduled, target_name
from upo.tables.frames import first_line
from upo.tables.numbering import Ids
from upo.training.checkpoint import load_checked, load_networks
from upo.training.refit import SUFFIX
from upo.training.stack import part_of_state

REMEDY = "trusted=true"
PAIRS = 10**9  # users x items of a simulated world that a folder may ask for
RESULTS = 2**24  # bytes of a results.csv
_FILES = ("train", "test", "user_features", "item_features", "data_dir")


def load(folder: str | Path, *, trusted: bool = False) -> Fitted:
    """Read what ``Fitted.save`` wrote, or a finished run of ``train.py``; nothing is executed.

    Args:
        folder: The folder of the model (or the file in it), or of the run, whose log is read again.
        trusted: Also build networks that are not of upo itself; their code is then run.

    Raises:
        InputError: If the file or the run is missing, unfinished, damaged, or of another schema.
    """
    place = path_of("folder", folder)
    if (place / ".hydra").is_dir():
        return load_model(place, trusted=trusted)
    return load_saved(place, trusted=trusted)


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
        return load_saved(folder, trusted=trusted)
    config = _config(folder, trusted=trusted)
    dataset = config["dataset"]
    if log is not None:
        if "train" not in dataset:
            raise InputError(f"log={log} is for runs with dataset=table; leave it out.")
        dataset["train"] = str(log.resolve())
    state, path = _last_state(config, folder)
    seeds, networks = state.get("seeds") or [], state.get("estimator") or {}
    sentence = f"{path}: the data that the run names take too long or too much to read"
    try:
        if trusted:
            datamodule: RatingDataModule = instantiate(dataset)
            protocol: Protocol = instantiate(config["protocol"])
            data = datamodule.data
        else:
            seeds = check_seeds(seeds)
            budget = Budget(
                elements=2**26,
                operations=10**6,
                seconds=8.0,
                sentence=f"{sentence}; if you trust the folder, {REMEDY}.",
            )
            with budget:
                datamodule = build("dataset", _harmless(dataset))
                protocol = build("protocol", config["protocol"])
                data = datamodule.data
        user_ids, item_ids = _ids(data, folder)
        kept = [r for r in range(len(seeds)) if r not in dict(state.get("failures") or {})]
        if len(kept) < len(seeds):  # the others diverged
            networks = part_of_state(networks, kept, len(seeds))
        target = target_name(config["estimator"])
        held = protocol.held(data)
        space = PairSpace.of(data, [seeds[r] for r in kept], protocol.holdout, target, held)
        with part_of_stack(kept, len(seeds)):
            if trusted:
                estimator = as_wide(build_estimator(config["estimator"], space), networks)
                estimator.load_state_dict(networks)
            else:
                estimator = stranger(config["estimator"], space, networks, path, REMEDY)
    except ForeignPartError as error:
        where = folder / ".hydra" / "config.yaml"
        raise InputError(f"{where} {error}; if you trust the folder, {REMEDY}.") from error
    except InputError:
        raise
    except (RuntimeError, ContentError) as error:
        raise InputError(
            f"{folder}: the networks do not fit the data ({first_line(error)}), which may have "
            "changed since the run; restore the data, or train again."
        ) from error
    except Exception as error:  # whatever a damaged folder brings about
        raise damaged(path, error) from error
    results = folder / "results.csv"
    return Fitted(
        estimator,
        resolved(config) if trusted else OmegaConf.create(config["estimator"]),
        metrics=_metrics(results, len(seeds)),
        columns=(
            str(dataset.get("user_column", "user")),
            str(dataset.get("item_column", "item")),
        ),
        user_ids=user_ids,
        item_ids=item_ids,
        about={
            "data": report(data),
            "protocol": protocol.label,
            "command": " ".join(["python train.py", *_overrides(folder)]),
        },
        target=target,
    )


def _overrides(folder: Path) -> list[str]:
    """What the run was started with, as far as it can be read."""
    try:
        found = read_yaml(folder / ".hydra" / "overrides.yaml")
    except (YamlError, OSError):
        return ["(not recorded)"]
    return [visible(str(x), 200) for x in found[:100]] if isinstance(found, list) else []


def _config(folder: Path, *, trusted: bool) -> Any:
    """The composed configuration, with files where they were seen from the run's own folder.

    Plain values with their references followed, unless the folder is trusted: only then do
    Hydra's resolvers see it.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise InputError(
            f"run={folder} is no folder of a run or a saved model ({path} and {FILE} are missing); "
            "give the folder that train.py or .save wrote to."
        )
    try:
        run = path.with_name("hydra.yaml")
        hydra = read_yaml(run) if run.is_file() else {}
        cwd = str(hydra.get("hydra", {}).get("runtime", {}).get("cwd", "."))
        config: Any = OmegaConf.load(path) if trusted else read_yaml(path)
        parts = ("dataset", "estimator", "protocol", "paths")
        lacking = [part for part in parts if not hasattr(config.get(part), "items")]
        if lacking:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        if not trusted:
            more = [key for key in ("propensity", "refit") if key in config]  # newer than runs
            config = followed({part: config[part] for part in [*parts, *more]})
        config["paths"]["data_dir"] = str(Path(cwd) / str(config["paths"]["data_dir"]))
        for place in [config["dataset"], config["dataset"].get("base")]:
            for key in _FILES:
                value = place.get(key) if hasattr(place, "items") else None
                if value is not None:
                    place[key] = str(Path(cwd) / str(value))
        stages = config["estimator"]["stages"]
        if not hasattr(stages, "items") or not stages:
            raise ValueError("its estimator has no stages")
    except (
        OmegaConfBaseException,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:
        reason = first_line(error)
        raise InputError(
            f"{path} is not a readable YAML file of a run ({reason}); restore it or train again."
        ) from error
    except Exception as error:  # the YAML reader has exceptions of its own
        raise InputError(f"{path} is not a readable YAML file; restore it.") from error
    return config


def _harmless(dataset: dict[str, Any]) -> dict[str, Any]:
    """Settings of a dataset that fetch nothing and write nowhere but into the usual cache.

    Raises:
        ForeignPartError: If its name could lead out of that, or its world is too large to draw.
    """
    changed = dict(dataset)
    if not re.fullmatch(r"[\w][\w .-]{0,60}", str(changed.get("name", "table"))):
        raise ForeignPartError(
            f"calls its data {str(changed['name'])[:60]!r}, which is no plain name"
        )
    if "download" in changed:
        changed["download"] = False
    if "cache_dir" in changed:
        changed["cache_dir"] = os.environ.get("UPO_CACHE_DIR", "cache")
    sizes = [changed.get(key, 1) for key in ("n_users", "n_items")]
    if not all(type(size) is int and 0 < size <= PAIRS for size in sizes):
        raise ForeignPartError("asks for a world without a size")
    if sizes[0] * sizes[1] > PAIRS:
        raise ForeignPartError(f"asks for a world of {sizes[0]:,} x {sizes[1]:,} pairs")
    if isinstance(changed.get("base"), dict):
        changed["base"] = _harmless(changed["base"])
    return changed


def _last_state(config: Any, folder: Path) -> tuple[dict[str, Any], Path]:
    """The checkpoint of the last stage, with all that the stages before it left, and its file."""
    estimator = config["estimator"]
    plain = OmegaConf.create(estimator) if isinstance(estimator, dict) else estimator
    stages = scheduled(plain)
    if not all(re.fullmatch(r"\w{1,60}", stage) for stage in stages):
        raise InputError(f"run={folder} has a stage whose name is no plain word; train again.")
    names = {
        stage: f"stage {stage} of {', '.join(stages)} has no complete checkpoint"
        for stage in stages
    }
    if config.get("refit") is True:
        last = f"{stages[-1]}{SUFFIX}"
        names[last] = (
            f"it was to be trained on all rows (refit=true), and {last}.pt is not complete"
        )
    for name, lacking in names.items():
        path = folder / "checkpoints" / f"{name}.pt"
        state = load_checked(path) if path.is_file() else {"done": False}
        if state.get("done") is not True:
            raise InputError(
                f"run={folder} is not finished: {lacking}; finish it with python train.py "
                f"resume={folder}."
            )
    return load_networks(path), path


def _metrics(path: Path, rows: int) -> pd.DataFrame:
    """The results of the run, if they are there and as many as its seeds."""
    try:
        if not path.is_file() or path.stat().st_size > RESULTS:
            return pd.DataFrame()
        found = pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame()
    return found if len(found) == rows else pd.DataFrame()


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
