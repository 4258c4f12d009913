"""Keeps a completed matrix on disk, with a checksum, so that it is computed once."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upo.core.console import uninterrupted
from upo.core.files import atomic_file
from upo.data.semisynthetic_completion import Completed, Completion, LogRows

_FORMAT = 1  # raised when the meaning of a cached matrix changes


def completed(
    rows: LogRows, n_users: int, n_items: int, completion: Completion, folder: Path, name: str
) -> Completed:
    """The completed matrix, from the cache or computed and put there.

    The file is called after a SHA-256 of the rows in their order, the size and the settings of the
    completion, and holds one of the matrix. A file that does not hold what its name says is
    replaced; where none can be written the matrix is computed each time. Both are said on standard
    error.

    Args:
        rows: The base's ratings.
        n_users: Rows of the matrix.
        n_items: Columns of the matrix.
        completion: How it is completed.
        folder: Of the cache; made if it is not there.
        name: First part of the file's name.
    """
    key = fingerprint(rows, n_users, n_items, completion)
    path = folder / f"{name}-{key[:16]}.pt"
    if path.is_file():
        found = _read(path, key, (n_users, n_items))
        if found is not None:
            return found
        _say(f"{path} is damaged or not what its name says; the matrix is completed anew.")
    result = completion(rows, n_users, n_items)
    content = {
        "key": key,
        "sha256": _digest(result.matrix),
        "settings": json.dumps(asdict(completion)),
        **result._asdict(),
    }
    try:
        with atomic_file(path) as file, uninterrupted():
            torch.save(content, file)
    except OSError as error:
        _say(
            f"{path} cannot be written ({error.strerror or error}), so the matrix is completed at "
            f"every run; set dataset.cache_dir to a folder that can be."
        )
    return result


def fingerprint(rows: LogRows, n_users: int, n_items: int, completion: Completion) -> str:
    """SHA-256, in hexadecimal digits, of all that the completed matrix depends on."""
    settings = {"format": _FORMAT, "size": [n_users, n_items], **asdict(completion)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for column in (rows.users, rows.items, rows.ratings.double()):
        digest.update(column.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str, size: tuple[int, int]) -> Completed | None:
    """What the file holds; None if it is damaged or another matrix."""
    try:
        with uninterrupted():  # the reader takes an exception for damage
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        result = Completed(*(content[field] for field in Completed._fields))
        right = content["key"] == key and content["sha256"] == _digest(result.matrix)
    except Exception:  # the unpickler raises many kinds
        return None
    return result if right and tuple(result.matrix.shape) == size else None


def _digest(matrix: Tensor) -> str:
    return hashlib.sha256(matrix.contiguous().numpy().tobytes()).hexdigest()


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
