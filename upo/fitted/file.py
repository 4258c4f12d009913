"""Models on disk: one file of tensors and plain values, read without running anything in it."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from upo.core.archive import ArchiveError, read_archive
from upo.core.budget import Budget
from upo.core.distributed import rank
from upo.core.files import write_atomically
from upo.core.optim import part_of_stack
from upo.core.yaml_files import YamlError, parse_yaml
from upo.data.observations import ListedCells
from upo.errors import InputError
from upo.fitted.card import FILE as CARD
from upo.fitted.card import card, command
from upo.fitted.content import ContentError, as_wide, check_networks, checked, elements, members
from upo.fitted.parts import ForeignPartError, build
from upo.models.estimator import Estimator
from upo.pairs import PairSpace
from upo.pairs.target import POSITIVE, Rating
from upo.runs.assembly import build_estimator
from upo.runs.crossfit import OutOfFold
from upo.tables.ids import plain_ids
from upo.tables.numbering import Ids
from upo.training.checkpoint import save_atomically

SCHEMA = 2
FILE = "model.pt"
REMEDY = "upo.load(..., trusted=True)"


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
    target: str = "positive",
    about: Mapping[str, str] | None = None,
    out_of_fold: OutOfFold | None = None,
    verdict: str | None = None,
) -> Path:
    """Write a model into a folder, in one move, and its card beside it.

    The arguments are those of ``Fitted``, and the verdict of an audit.

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
        "target": target,
        "about": dict(about or {}),
        "scale": _scale(estimator.space),
        "cells": _listed(estimator.space),
        "out_of_fold": None if out_of_fold is None else out_of_fold._asdict(),
    }
    if rank() == 0:
        try:
            save_atomically(content, path)
            text = card(
                config,
                estimator.space,
                metrics,
                about={**({} if params is None else {"command": command(params)}), **(about or {})},
                target=target,
                columns=columns,
                verdict=verdict,
            )
            write_atomically(path.parent / CARD, text)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}); fix the folder's "
                "permissions or choose another."
            ) from error
    return path


def read_model(folder: str | Path, *, trusted: bool) -> dict[str, Any]:
    """The arguments of a ``Fitted``; those of the function as in ``upo.load``.

    Raises:
        InputError: If the file is missing, damaged, of another schema, or would build what is not
            of upo.
    """
    path = Path(folder) / FILE if Path(folder).is_dir() else Path(folder)
    if not path.exists():
        raise InputError(f"{path} is not there; give the folder that .save wrote to.")
    try:
        file = read_archive(path)
        if not isinstance(file, dict) or "schema" not in file:
            raise ContentError("it has no schema")
        if file["schema"] != SCHEMA:
            raise InputError(
                f"{path} has model schema {str(file['schema'])[:20]} (written by upo "
                f"{str(file.get('upo'))[:20]}), upo {version('upo')} reads {SCHEMA}; install the "
                "version that wrote it or fit again."
            )
        content = checked(file)
        config: Any = OmegaConf.create(content.config) if trusted else parse_yaml(content.config)
        space = PairSpace(
            content.keys,
            torch.zeros(len(content.keys)),
            *content.size,
            content.seeds,
            cells=None if content.cells is None else ListedCells(content.cells),
            features=content.features,
            target=POSITIVE if content.scale is None else Rating(*content.scale),
        )
        with part_of_stack(*members(content.metrics, content.seeds)):
            if trusted:
                estimator = as_wide(build_estimator(config, space), content.networks)
                estimator.load_state_dict(content.networks)
            else:
                estimator = stranger(config, space, content.networks, path, REMEDY)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise damaged(path, error) from error
    return {
        "estimator": estimator,
        "config": OmegaConf.create(config),
        "metrics": content.metrics,
        "columns": content.columns,
        "user_ids": content.user_ids,
        "item_ids": content.item_ids,
        "params": content.params,
        "target": content.target,
        "about": content.about,
        "out_of_fold": content.out_of_fold,
    }


def _listed(space: PairSpace) -> torch.Tensor | None:
    """The keys of D, where a table listed them."""
    return space.cells.keys.cpu() if isinstance(space.cells, ListedCells) else None


def _scale(space: PairSpace) -> list[float] | None:
    """The numbers of a scale of ratings, where there is one."""
    return list(space.target.numbers) if isinstance(space.target, Rating) else None


def stranger(
    config: Any, space: PairSpace, networks: Mapping[str, torch.Tensor], path: Path, remedy: str
) -> Estimator:
    """An estimator of a file that nobody vouches for: our classes, and no more than it holds.

    Args:
        config: Plain values of an estimator's configuration.
        space: Its pair space.
        networks: Its state.
        path: The file, for sentences.
        remedy: What to do with a file that is trusted.

    Raises:
        InputError: If it would build anything else.
        ContentError: If the state is not that of the networks.
    """
    if not isinstance(config, dict) or not isinstance(config.get("networks"), dict):
        raise ContentError("its configuration names no networks")
    if not isinstance(config.get("name"), str):
        raise ContentError("its configuration has no name")
    size = elements(networks) + space.n_observed
    budget = Budget(
        elements=4 * size + 2**20,
        operations=200 * (len(networks) + 10) * (space.replicas + 10),
        seconds=6.0 + size / 1e6,
        sentence=f"{path} asks for larger networks than it holds; {damage(path)}",
    )
    try:
        with budget:
            estimator = build_estimator(config, space, build)
            check_networks(estimator, networks)
    except ForeignPartError as error:
        raise InputError(f"{path} {error}; if you trust the file, {remedy}.") from error
    return estimator


def damage(path: Path) -> str:
    """What to do about a damaged file."""
    return "restore the file or fit again." if path.name == FILE else "restore it or train again."


def damaged(path: Path, error: BaseException) -> InputError:
    """The sentence for whatever a damaged file brings about."""
    known = isinstance(error, ContentError | ArchiveError | YamlError)
    reason = f" ({error})" if known else ""
    return InputError(f"{path} is not a readable model of upo{reason}; {damage(path)}")
