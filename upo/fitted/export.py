"""A fitted model out of this house: frames of embeddings, and plain arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from upo.core.files import atomic_file, write_atomically
from upo.errors import InputError
from upo.models.calibration import Calibration
from upo.models.estimator import Estimator
from upo.models.plain import HasPlain, Plain

SCHEMA = 1
ARRAYS, ABOUT = "arrays.npz", "model.json"
ROLES = ("prediction", "propensity")
MAPS = ("isotonic", "histogram")  # calibrations that are a table of a logit

SCALE = ("low", "high", "centre", "spread")  # a rating: clip(centre + spread z, low, high)

Scale = tuple[float, float, float, float]
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class Written:
    """An answer as tables.

    Attributes:
        plain: Tables of its network.
        calibration: What corrects its logit, if anything does.
    """

    plain: Plain
    calibration: Calibration | None = None

    @property
    def form(self) -> str:
        """``bilinear`` or ``perceptron``."""
        return "perceptron" if self.plain.layers else "bilinear"


def written(estimator: Estimator, of: str) -> Written:
    """The tables of an answer.

    Raises:
        InputError: If it has none, or is more than tables.
    """
    if of not in ROLES:
        raise InputError(f"of must be {' or '.join(ROLES)}, got {of!r}.")
    if of == "propensity" and not estimator.has_propensity:
        raise InputError("This estimator learns no propensity; fit one that does, such as 'ips'.")
    role = estimator.calibrated(of) if of == "propensity" else of
    calibration = estimator.networks[role] if role != of else None
    network = dict(estimator.networks.items()).get(of)
    more = of == "propensity" and hasattr(estimator.weighting, "propensity")
    if not isinstance(network, HasPlain) or more:
        raise InputError(
            f"The {of} of this estimator is more than tables of users and items, so it cannot be "
            "written out; write its answers with upo.predict instead."
        )
    if isinstance(calibration, Calibration) and calibration.kind not in MAPS:
        raise InputError(
            f"propensity.calibrate={calibration.kind} cannot be written out; use isotonic, or "
            "write the answers with upo.predict."
        )
    return Written(network.plain(), calibration if isinstance(calibration, Calibration) else None)


def embeddings(
    estimator: Estimator, side: str, ids: Any, name: str, of: str, seed: int | None
) -> pd.DataFrame:
    """Embeddings of one side by id; arguments as in ``Fitted.embeddings``."""
    if side not in ("user", "item"):
        raise InputError(f"embeddings are of 'user' or of 'item', got {side!r}.")
    seeds = [int(x) for x in estimator.space.seeds]
    if seed is not None and seed not in seeds:
        raise InputError(f"seed must be one of {seeds}, got {seed!r}.")
    replica = 0 if seed is None else seeds.index(seed)
    plain = written(estimator, of).plain
    table = getattr(plain, side)[replica].cpu().numpy()
    bias = getattr(plain, f"{side}_bias")
    columns: dict[Any, Any] = dict(enumerate(table.T))
    if bias is not None:
        columns["bias"] = bias[replica].cpu().numpy()
    return pd.DataFrame(columns, index=pd.Index(ids[: len(table)], name=name))


def arrays_of(answer: Written, of: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tables by name, which begins with that of the answer."""
    plain = answer.plain
    named = {"user": plain.user, "item": plain.item}
    if plain.user_bias is not None and plain.item_bias is not None:
        named |= {"user_bias": plain.user_bias, "item_bias": plain.item_bias}
    for number, (weight, bias) in enumerate(plain.layers):
        named |= {f"layer{number}_weight": weight, f"layer{number}_bias": bias}
    if answer.calibration is not None:
        named |= {"places": answer.calibration.places, "levels": answer.calibration.levels}
    for name, tensor in named.items():
        yield f"{of}_{name}", tensor.cpu().numpy()


def export(
    folder: str | Path,
    estimator: Estimator,
    *,
    answers: tuple[str, ...],
    name: str,
    columns: tuple[str, str],
    ids: tuple[Any, Any],
    scale: Scale | None = None,
) -> Path:
    """Write tables and what they mean; arguments as the attributes of a ``Fitted``.

    Args:
        folder: Where; it is made if it is not there.
        estimator: The networks.
        answers: The first has to be written, others are left out where they cannot be.
        name: Of the estimator.
        columns: Names of the user and the item.
        ids: Ids of users and of items by index.
        scale: Of predictions that are ratings; None where they are probabilities.

    Returns:
        The folder.

    Raises:
        InputError: If the first answer cannot be written, or the folder cannot.
    """
    place = Path(folder)
    arrays: Arrays = {
        f"{side}_ids": _plain(x) for side, x in zip(("user", "item"), ids, strict=True)
    }
    about: dict[str, Any] = {}
    left_out = {}
    for number, of in enumerate(answers):
        try:
            answer = written(estimator, of)
        except InputError as error:
            if not number:
                raise
            left_out[of] = str(error)
            continue
        arrays |= dict(arrays_of(answer, of))
        about[of] = {
            "form": answer.form,
            "layers": len(answer.plain.layers),
            "link": "scale" if of == "prediction" and scale else "logistic",
            "calibration": None if answer.calibration is None else answer.calibration.kind,
        }
    content = {
        "schema": SCHEMA,
        "upo": version("upo"),
        "estimator": name,
        "seeds": [int(x) for x in estimator.space.seeds],
        "columns": list(columns),
        "answers": about,
        "scale": scale and dict(zip(SCALE, scale, strict=True)),
        "left_out": left_out,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        with atomic_file(place / ARRAYS) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        write_atomically(place / ABOUT, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"{place} cannot be written ({error.strerror or error}); fix the folder's permissions "
            "or choose another."
        ) from error
    return place


def _plain(ids: Any) -> np.ndarray[Any, Any]:
    """Ids that are read without pickled code: whole numbers, or text of one width."""
    if ids.dtype.kind in "iu":
        return np.asarray(ids)
    odd = next((x for x in ids if not isinstance(x, str)), None)
    if odd is not None:
        raise InputError(
            f"A model is written out with ids of text or whole numbers, but {odd!r} is of type "
            f"{type(odd).__name__}; turn that column into text and fit again."
        )
    return np.asarray(list(ids), dtype=np.str_)
