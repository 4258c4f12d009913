"""Checkpoints in parts: each process writes its rows of every table, any number of them reads.

Beside the file of a stage, which says what there is, lie files of rows of all tables: of the
networks, which are the model, and of what else training needs. Their names carry the epoch, so that
those of the last complete checkpoint stay until the next one is complete. They are read like any
other: nothing in them is run.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upo.core.archive import ArchiveError, read_archive
from upo.core.distributed import sum_across_ranks
from upo.core.layers import ReplicaEmbedding
from upo.core.shards import Shard
from upo.errors import InputError
from upo.training.stage import StageModule

PIECE = 2**23  # elements of a process in one file, about: what is copied or read at once
MOST = 10_000  # files of a checkpoint
KINDS = ("networks", "training")
NUMBERS = (torch.float32, torch.float64, torch.bfloat16)
_STAMP = re.compile(r"\d{1,9}(-done)?")


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


def without_tables(
    content: dict[str, Any], module: StageModule, shard: Shard, stamp: str
) -> tuple[dict[str, Any], Parts, list[Tensor]]:
    """Take the tables out of a checkpoint.

    Args:
        content: The checkpoint, which stays as it is.
        module: The stage.
        shard: This process.
        stamp: Of the epoch.

    Returns:
        The checkpoint without them, how they will lie in files, and this process's part of each.
    """
    content = _copied(content)
    present = [table for table in tables_of(module) if _has(content, table)]
    taken = [table.taken(content) for table in present]
    size = sum(t.n * t.replicas * x.shape[1] for t, x in zip(present, taken, strict=True))
    parts = Parts(stamp, shard.of, max(1, -(-size // shard.of // PIECE)), present)
    return content | {"parts": parts.plain()}, parts, taken


def files_of(
    parts: Parts, taken: list[Tensor], shard: Shard, path: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of this process with what goes into each, one after another.

    Args:
        parts: How tables lie in files.
        taken: This process's part of each.
        shard: This process.
        path: The file of the stage.
    """
    for piece in range(parts.pieces):
        number = shard.number * parts.pieces + piece
        for kind in KINDS:
            rows = [
                _rows_of(x, table, parts.rows(number, table.n), shard)
                for x, table in zip(taken, parts.tables, strict=True)
                if table.kind == kind
            ]
            yield parts.name(path, kind, number), {"rows": rows}


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
            _STAMP.fullmatch(parts.stamp) is not None
            and all(type(x) is int and x > 0 for x in (parts.of, parts.pieces))
            and parts.of * parts.pieces <= MOST
            and all(_plausible(table, parts.of) for table in parts.tables)
        )
    except (TypeError, KeyError):
        fits = False
    if not fits:
        raise _damaged(path)
    return parts


def read_parts(
    content: dict[str, Any],
    parts: Parts,
    path: Path,
    shard: Shard,
    kinds: tuple[str, ...] = KINDS,
) -> None:
    """Give a checkpoint the rows of a process of any number of processes.

    Args:
        content: Of the file of the stage.
        parts: What it says of them.
        path: The file.
        shard: The process; the only one of one reads whole tables.
        kinds: What is read; other tables stay out.

    Raises:
        InputError: If a file is missing or damaged, or of another checkpoint.
    """
    found: list[list[Tensor]] = [[] for _ in parts.tables]
    for kind in kinds:
        wanted = [k for k, table in enumerate(parts.tables) if table.kind == kind]
        for number in range(parts.of * parts.pieces if wanted else 0):
            held = [parts.rows(number, parts.tables[k].n) for k in wanted]
            own = [shard.rows(parts.tables[k].n) for k in wanted]
            if not any(_overlap(a, b) for a, b in zip(held, own, strict=True)):
                continue
            file = parts.name(path, kind, number)
            rows = _read(file, len(wanted))
            for k, x, (lo, hi), mine in zip(wanted, rows, held, own, strict=True):
                replicas = parts.tables[k].replicas
                if x.dim() != 2 or len(x) != replicas * (hi - lo) or x.dtype not in NUMBERS:
                    raise _damaged(file)
                if _overlap((lo, hi), mine):
                    first, last = max(lo, mine[0]), min(hi, mine[1])
                    of_each = x.view(replicas, hi - lo, -1)[:, first - lo : last - lo]
                    found[k].append(of_each.clone() if last - first < hi - lo else of_each)
        for k in wanted:
            if len({(x.shape[2], x.dtype) for x in found[k]}) != 1:
                raise _damaged(path)
            whole = torch.cat(found[k], dim=1)
            found[k] = []
            try:
                parts.tables[k].put(content, whole.view(-1, whole.shape[2]))
            except (KeyError, TypeError, IndexError) as error:
                raise _damaged(path) from error


def remove_others(parts: Parts, path: Path) -> None:
    """Remove the parts of other epochs, and what a killed process had begun to write of them."""
    numbers = range(parts.of * parts.pieces)
    kept = {parts.name(path, kind, number) for kind in KINDS for number in numbers}
    part = re.compile(rf"{re.escape(path.stem)}\.{_STAMP.pattern}-\w+-\d+of\d+\.pt")
    for file in path.parent.iterdir():
        if part.fullmatch(file.name) and file not in kept:
            file.unlink(missing_ok=True)


def all_wrote(error: OSError | None, device: torch.device, path: Path) -> None:
    """Wait for all processes; all go on, or none does.

    Raises:
        OSError: That of this process.
        InputError: If another process could not write.
    """
    failed = sum_across_ranks(torch.full((1,), float(error is not None), device=device))
    if error is not None:
        raise error
    if float(failed):
        raise InputError(
            f"another process could not write its part of {path} (see above); mend that, then "
            "resume the run."
        )


def _read(file: Path, count: int) -> list[Tensor]:
    try:
        content = read_archive(file)
    except FileNotFoundError as error:
        raise InputError(
            f"{file} is missing, a part of a checkpoint; restore it, or run anew."
        ) from error
    except (ArchiveError, OSError) as error:
        raise _damaged(file) from error
    rows = content.get("rows") if isinstance(content, dict) else None
    right = isinstance(rows, list) and len(rows) == count
    if not right or not all(isinstance(x, Tensor) for x in rows or []):
        raise _damaged(file)
    return list(rows or [])


def _damaged(file: Path) -> InputError:
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


def _rows_of(x: Tensor, table: Table, rows: tuple[int, int], shard: Shard) -> Tensor:
    """Some of a process's rows, on the CPU, in a tensor that holds nothing else."""
    lo, hi = shard.rows(table.n)
    first, last = rows
    part = x.detach().view(table.replicas, hi - lo, -1)[:, first - lo : last - lo].cpu()
    part = part.reshape(-1, x.shape[1])
    return part if part.untyped_storage().nbytes() == part.nbytes else part.clone()


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def _copied(tree: Any) -> Any:
    """Dictionaries anew, so that tensors can be taken out; the tensors themselves stay."""
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return tree


def _has(content: dict[str, Any], table: Table) -> bool:
    found: Any = content
    for key in table.path:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True
