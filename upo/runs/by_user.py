"""What a run keeps of its test users and groups: ``test_users.npz`` and ``test_groups.csv``."""

import io
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upo.core.archive import ArchiveError, regular
from upo.core.files import atomic_file
from upo.errors import InputError
from upo.evaluation.groups import Group
from upo.metrics.per_user import kept
from upo.runs.experiment import RunResult
from upo.runs.results import spread, write_rows

USERS, GROUPS = "test_users.npz", "test_groups.csv"
NOTES = "search_notes"  # in summary.json
BYTES = 2**28  # of a file of users; ten seeds of a hundred thousand users have 2^24
Floats = NDArray[np.float64]


class UserFigures(NamedTuple):
    """Pseudo values of test users (``upo.functional.per_user``): their mean is the metric.

    Attributes:
        users: ``[U]`` indices.
        seeds: ``[S]``.
        values: Metric -> ``[S, U]``; NaN where a seed reads no row of a user.
    """

    users: NDArray[np.int64]
    seeds: NDArray[np.int64]
    values: dict[str, Floats]


def read_notes(folder: Path) -> list[str]:
    """What the search said of the values that a run was made with; nothing of runs of before."""
    try:
        with (folder / "summary.json").open(encoding="utf-8") as file:
            found = json.loads(file.read(BYTES)).get(NOTES, [])
    except (OSError, ValueError, AttributeError):
        return []  # of a CSV file of results alone
    return [str(each) for each in found] if isinstance(found, list) else []


def names_at(k: int, target: str = "positive") -> list[str]:
    """Columns of the figures that are kept by user, in order."""
    return [f"{name}@{k}" if name in ("ndcg", "f1") else name for name in kept(target)]


def write_users(
    folder: Path,
    users: tuple[Tensor, Tensor],
    seeds: Sequence[int],
    k: int,
    target: str = "positive",
) -> None:
    """Write the figures of every test user.

    Args:
        folder: Run folder.
        users: Indices ``[U]`` and pseudo values ``[4, S, U]``.
        seeds: S of them.
        k: Cutoff of the ranking metrics.
        target: What was predicted.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        users=users[0].numpy(),
        seeds=np.asarray(seeds, dtype=np.int64),
        names=np.asarray(names_at(k, target)),
        values=users[1].numpy().astype(np.float32),
    )
    with atomic_file(folder / USERS) as file:
        file.write(buffer.getvalue())


def read_users(folder: Path) -> UserFigures | None:
    """What ``write_users`` wrote; None where there is no such file, as in runs of before.

    Raises:
        InputError: If it is damaged.
    """
    path = folder / USERS
    if not path.is_file():
        return None
    try:
        regular(path)
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > BYTES:
                raise ValueError(f"it unpacks to more than {BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as file:
            users, seeds, names, values = (
                file[key] for key in ("users", "seeds", "names", "values")
            )
        if values.shape != (len(names), len(seeds), len(users)):
            raise ValueError("its arrays do not fit each other")
    except (ArchiveError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); run anew or leave it out.") from error
    parts = values.astype(np.float64)
    found = dict(zip(map(str, names), parts, strict=True))
    return UserFigures(users.astype(np.int64), seeds.astype(np.int64), found)


def write_groups(folder: Path, groups: Sequence[Group], seeds: Sequence[int]) -> None:
    """Write the test metrics of groups, a row for each seed."""
    rows = [
        {
            **{key: getattr(group, key) for key in _ABOUT},
            "seed": seed,
            **{name: float(value[r]) for name, value in group.metrics.items()},
        }
        for group in groups
        for r, seed in enumerate(seeds)
    ]
    if rows:
        write_rows(folder / GROUPS, rows)


_ABOUT = ("of", "name", "low", "high", "members", "rows")


def summaries(result: RunResult) -> dict[str, Any]:
    """For ``summary.json``: figures expected of a user drawn, and those of groups."""
    if result.users is None:
        return {}
    values = result.users[1].numpy()
    expected = {}
    for name, each in zip(kept(result.estimator.space.target.name), values, strict=True):
        read = ~np.isnan(each)  # a protocol may leave users out, each seed others
        there = read.any(axis=0)
        mean = np.where(read, each, 0.0).sum(axis=0)[there] / read.sum(axis=0)[there]
        error = mean.std(ddof=1) / math.sqrt(len(mean)) if len(mean) > 1 else math.nan
        expected[name] = {"mean": float(mean.mean()), "error_over_users": float(error)}
    groups = [
        {
            **{key: getattr(group, key) for key in _ABOUT},
            "metrics": {name: spread(value.tolist()) for name, value in group.metrics.items()},
        }
        for group in result.groups
    ]
    return {"expected": expected, "groups": groups}
