"""Checkpoints in parts: each process writes its rows of every table, any number of them reads.

Parts are read like any other file of a run: nothing in them is run.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upo.core.archive import ArchiveError, read_archive
from upo.core.distributed import sum_across_ranks
from upo.core.shards import Shard
from upo.errors import InputError
from upo.training.parts import KINDS, MOST, PIECE, STAMP, Parts, Table, damaged_part, tables_of
from upo.training.stage import StageModule

NUMBERS = (torch.float32, torch.float64, torch.bfloat16)


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
    pieces = max(1, min(-(-size // shard.of // PIECE), MOST // shard.of))
    parts = Parts(stamp, shard.of, pieces, present)
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
                    raise damaged_part(file)
                if _overlap((lo, hi), mine):
                    first, last = max(lo, mine[0]), min(hi, mine[1])
                    of_each = x.view(replicas, hi - lo, -1)[:, first - lo : last - lo]
                    found[k].append(of_each.clone() if last - first < hi - lo else of_each)
        for k in wanted:
            if len({(x.shape[2], x.dtype) for x in found[k]}) != 1:
                raise damaged_part(path)
            whole = torch.cat(found[k], dim=1)
            found[k] = []
            try:
                parts.tables[k].put(content, whole.view(-1, whole.shape[2]))
            except (KeyError, TypeError, IndexError) as error:
                raise damaged_part(path) from error


def remove_others(parts: Parts, path: Path) -> None:
    """Remove the parts of other epochs, and what a killed process had begun to write of them."""
    numbers = range(parts.of * parts.pieces)
    kept = {parts.name(path, kind, number) for kind in KINDS for number in numbers}
    part = re.compile(rf"{re.escape(path.stem)}\.{STAMP.pattern}-\w+-\d+of\d+\.pt")
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
        raise damaged_part(file) from error
    rows = content.get("rows") if isinstance(content, dict) else None
    right = isinstance(rows, list) and len(rows) == count
    if not right or not all(isinstance(x, Tensor) for x in rows or []):
        raise damaged_part(file)
    return list(rows or [])


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
