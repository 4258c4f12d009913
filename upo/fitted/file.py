"""Models on disk: one file of tensors and plain values, read without running anything in it."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from upo.core.distributed import rank
from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.tables.ids import plain_ids, restored_ids
from upo.tables.numbering import Ids
from upo.training.checkpoint import save_atomically

SCHEMA = 2
FILE = "model.pt"


def write_model(
    folder: str | Path,
    estimator: Estimator,
    config: DictConfig,
    *,
    metrics: pd.DataFrame,
    columns: tuple[str, str],
    user_ids: Ids,
    item_ids: Ids,
    params: Mapping[str, Any] | None,
) -> Path:
    """Write a model into a folder, in one move; the arguments are those of ``Fitted``.

    Raises:
        InputError: If the ids are neither text nor whole numbers, or the folder cannot be written.
    """
    path = Path(folder) / FILE
    content = {
        "schema": SCHEMA,
        "upo": version("upo"),
        "config": OmegaConf.to_yaml(config),
        "networks": estimator.state_dict(),
        "seeds": estimator.space.seeds.tolist(),
        "keys": estimator.space.keys.cpu(),
        "size": [estimator.space.n_users, estimator.space.n_items],
        "features": [None if x is None else x.cpu() for x in estimator.space.features],
        "columns": list(columns),
        "user_ids": plain_ids(user_ids, "user"),
        "item_ids": plain_ids(item_ids, "item"),
        "metrics": {name: metrics[name].tolist() for name in metrics},
        "params": None if params is None else dict(params),
    }
    if rank() == 0:
        try:
            save_atomically(content, path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}); fix the folder's "
                "permissions or choose another."
            ) from error
    return path


def read_model(folder: str | Path, *, trusted: bool) -> dict[str, Any]:
    """The arguments of a ``Fitted``; those of the function as in ``upo.load``.

    Raises:
        InputError: If the file is missing, damaged, or of another schema.
    """
    path = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        raise InputError(f"{path} is not there; give the folder that .save wrote to.")
    damaged = f"{path} is not a readable model of upo; restore the file or fit again."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        raise InputError(damaged) from error
    if not isinstance(content, dict) or "schema" not in content:
        raise InputError(damaged)
    if content["schema"] != SCHEMA:
        raise InputError(
            f"{path} has model schema {content['schema']} (written by upo {content.get('upo')}), "
            f"upo {version('upo')} reads {SCHEMA}; install the version that wrote it or fit again."
        )
    try:
        config = OmegaConf.create(content["config"])
        assert isinstance(config, DictConfig)  # written as a mapping
        if not trusted:
            check_targets(config, path, "upo.load(..., trusted=True)")
        ids = [restored_ids(content[name]) for name in ("user_ids", "item_ids")]
        keys = content["keys"]
        size = content.get("size", [len(x) for x in ids])  # older files have ids of D alone
        columns = content.get("features", [None, None])
        space = PairSpace(
            keys,
            torch.zeros(len(keys)),
            size[0],
            size[1],
            content["seeds"],
            features=(columns[0], columns[1]),
        )
        if any(len(known) < n for known, n in zip(ids, size, strict=True)):
            raise InputError(damaged)
        networks = build_estimator(config, space)
        networks.load_state_dict(content["networks"])
        return {
            "estimator": networks,
            "config": config,
            "metrics": pd.DataFrame(content["metrics"]),
            "columns": (content["columns"][0], content["columns"][1]),
            "user_ids": ids[0],
            "item_ids": ids[1],
            "params": content["params"],
        }
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise InputError(damaged) from error


def check_targets(config: DictConfig, path: Path, remedy: str) -> None:
    """Only networks and parts of upo are built from a file: a file could name any function.

    Args:
        config: An estimator's configuration.
        path: The file, for the sentence.
        remedy: What to do with a file that is trusted.

    Raises:
        InputError: If it would build anything else.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for part in ("networks", "weighting", "form", "bins"):
        for target in targets(plain.get(part)):
            home, _, name = target.rpartition(".")
            if not (home.startswith("upo.models.") and home.count(".") == 2 and name[:1].isupper()):
                raise InputError(
                    f"{path} would build {target}, which is not of upo.models; if you trust the "
                    f"file, {remedy}."
                )


def targets(tree: Any) -> list[str]:
    """Whatever a configuration would build, at any depth."""
    if isinstance(tree, list):
        return [target for inner in tree for target in targets(inner)]
    if not isinstance(tree, dict):
        return []
    own = [str(tree["_target_"])] if "_target_" in tree else []
    return own + [target for inner in tree.values() for target in targets(inner)]
