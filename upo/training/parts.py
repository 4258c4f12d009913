"""How the tables of a checkpoint in parts lie in files, as the file of its stage says.

Beside that file lie files of rows of all tables: of the networks, which are the model, and of what
else training needs. Their names carry the epoch, so that those of the last complete checkpoint stay
until the next one is complete.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from upo.core.layers import ReplicaEmbedding
from upo.core.shards import Shard
from upo.errors import InputError
from upo.training.stage import StageModule

PIECE = 2**23  # elements of a process in one file, about: what is copied or read at once
MOST = 10_000  # files of a checkpoint, of either kind
KINDS = ("networks", "training")
STAMP = re.compile(r"\d{1,9}(-done)?")


class Table(NamedTuple):
    """A tensor of which processes have rows.

    Attributes:
        path: Keys that lead to it in a checkpoint.
        n: Rows of the whole table of a replica.
        replicas: How many there are.
    """

    path: list[str | int]
    n: int
    replicas: int

    @property
    def kind(self) -> str:
        """Of the file that it is in."""
        return KINDS[self.path[0] != "estimator"]

    def taken(self, content: dict[str, Any]) -> Any:
        """The tensor out of a checkpoint, in which it is then no more."""
        return self._holder(content).pop(self.path[-1])

    def put(self, content: dict[str, Any], value: Tensor) -> None:
        """Give a checkpoint the tensor back."""
        self._holder(content)[self.path[-1]] = value

    def _holder(self, content: dict[str, Any]) -> Any:
        found: Any = content
        for key in self.path[:-1]:
            found = found[key]
        return found


class Parts(NamedTuple):
    """How the tables of a checkpoint lie in files.

    Attributes:
        stamp: Of its epoch.
        of: Processes that wrote them.
        pieces: Files that each wrote of either kind.
        tables: Which there are.
    """

    stamp: str
    of: int
    pieces: int
    tables: list[Table]

    def name(self, path: Path, kind: str, number: int) -> Path:
        """A file."""
        of = self.of * self.pieces
        return path.with_name(f"{path.stem}.{self.stamp}-{kind}-{number}of{of}.pt")

    def rows(self, number: int, n: int) -> tuple[int, int]:
        """Rows of tables of ``n`` rows that are in files of a number."""
        lo, hi = Shard(number // self.pieces, self.of).rows(n)
        piece = number % self.pieces
        return lo + (hi - lo) * piece // self.pieces, lo + (hi - lo) * (piece + 1) // self.pieces

    def plain(self) -> dict[str, Any]:
        """What the file of the stage says of them."""
        return self._asdict() | {"tables": [list(table) for table in self.tables]}


def tables_of(module: StageModule) -> list[Table]:
    """Every tensor of a stage's checkpoint that has rows of a table."""
    found: list[Table] = []
    sizes: dict[int, int] = {}
    for name, table in module.estimator.networks.named_modules():
        if isinstance(table, ReplicaEmbedding):
            sizes[id(table.weight)] = table.n
            weight = f"{name}.weight"
            found.append(Table(["estimator", f"networks.{weight}"], table.n, table.replicas))
            found.append(Table(["selection", "snapshot", weight], table.n, module.replicas))
    replicas = len(module.members)
    for name, learner in module.learners.items():
        groups = [] if learner.optimizer is None else learner.optimizer.param_groups
        for number, p in enumerate(p for group in groups for p in group["params"]):
            if id(p) in sizes:
                for moment in ("exp_avg", "exp_avg_sq"):
                    path: list[str | int] = ["optimizers", name, number, moment]
                    found.append(Table(path, sizes[id(p)], replicas))
    return found


def parts_in(content: Mapping[str, Any], path: Path) -> Parts | None:
    """What the file of a stage says of parts; None if it is whole.

    Raises:
        InputError: If that cannot be.
    """
    said = content.get("parts")
    if said is None:
        return None
    try:
        parts = Parts(
            said["stamp"],
            said["of"],
            said["pieces"],
            [Table(*table) for table in said["tables"]],
        )
        fits = (
            STAMP.fullmatch(parts.stamp) is not None
            and all(type(x) is int and x > 0 for x in (parts.of, parts.pieces))
            and parts.of * parts.pieces <= MOST
            and all(_plausible(table, parts.of) for table in parts.tables)
        )
    except (TypeError, KeyError):
        fits = False
    if not fits:
        raise damaged_part(path)
    return parts


def damaged_part(file: Path) -> InputError:
    """The sentence for a file that is no part, or says of parts what cannot be."""
    return InputError(
        f"{file} is not a readable part of a checkpoint; restore it, or remove the checkpoint and "
        "run anew."
    )


def _plausible(table: Table, of: int) -> bool:
    path, n, replicas = table
    keys = isinstance(path, list) and 1 < len(path) < 6
    return (
        keys
        and all(type(key) in (str, int) for key in path)
        and all(type(x) is int and 0 < x < 2**40 for x in (n, replicas))
        and n >= of
    )
