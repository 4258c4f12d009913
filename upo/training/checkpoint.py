"""Checkpoints of a stage: written atomically at every validation, read without pickled code.

Batches are functions of the step number, so parameters, optimiser state, selection and history are
all that a resumed run needs to equal the uninterrupted one.
"""

from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback

from upo.core.archive import ArchiveError, read_archive
from upo.core.console import signals_first, uninterrupted
from upo.core.digest import tensor_digest
from upo.core.distributed import rank
from upo.core.files import atomic_file
from upo.core.shards import Shard, current_shard
from upo.errors import InputError
from upo.training.callbacks import History, ReplicaSelection
from upo.training.logs import Stopwatch
from upo.training.part_files import (
    all_wrote,
    files_of,
    read_parts,
    remove_others,
    without_tables,
)
from upo.training.parts import parts_in
from upo.training.stage import StageModule

SCHEMA = 1


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """``torch.save`` beside the target, then move: a kill leaves the old file or the new one."""
    with atomic_file(path) as file, uninterrupted():
        torch.save(content, file)


def load_checked(path: Path) -> dict[str, Any]:
    """Read a file of ``save_atomically`` without running anything in it.

    Raises:
        InputError: If it is not such a file or of another schema.
    """
    try:
        content: dict[str, Any] = read_archive(path)
    except (ArchiveError, OSError) as error:
        raise InputError(
            f"{path} is not a readable checkpoint ({error}); remove it and run anew."
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} has checkpoint schema {found}, this version of upo reads {SCHEMA}; run anew."
        )
    return content


def load_networks(path: Path) -> dict[str, Any]:
    """As ``load_checked``; of a checkpoint in parts, with the whole tables of its networks.

    Raises:
        InputError: If a file is missing, damaged or of another schema.
    """
    content = load_checked(path)
    parts = parts_in(content, path)
    if parts is not None:
        read_parts(content, parts, path, Shard(0, 1), ("networks",))
    return content


class StageCheckpoint(Callback):
    """Writes and reads the checkpoint of one stage.

    Args:
        path: File of the stage.
        selection: Its selection of epochs.
        history: Its history.
        stopwatch: Its seconds.
    """

    def __init__(
        self, path: Path, selection: ReplicaSelection, history: History, stopwatch: Stopwatch
    ) -> None:
        self.path, self.selection, self.history = path, selection, history
        self.stopwatch = stopwatch
        self._log: str | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write after the epoch's validation."""
        if isinstance(module, StageModule):
            self.write(module, done=False)

    def write(self, module: StageModule, *, done: bool) -> None:
        """Write the state after the current epoch: rank 0, and of spread tables each its rows.

        Raises:
            OSError: If it cannot be written.
            InputError: If another process could not write its rows.
        """
        shard = current_shard()
        if rank() > 0 and shard is None:
            return
        optimizers = {n: x.optimizer for n, x in module.learners.items() if x.optimizer is not None}
        content = {
            "schema": SCHEMA,
            "done": done,
            "seconds": self.stopwatch.seconds,
            "log": self._fingerprint(module),
            "seeds": module.whole[0].space.seeds.tolist(),
            "members": list(module.members),
            "failures": dict(module.failures),
            "next_epoch": (self.history.epochs[-1] + 1) if self.history.epochs else 0,
            "estimator": module.estimator.state_dict(),
            "optimizers": {name: o.state_dict()["state"] for name, o in optimizers.items()},
            "selection": self.selection.state_dict(),
            "history": self.history.state_dict(),
        }
        if shard is not None:
            self._write_parts(content, module, shard)
            return
        save_atomically(move_data_to_device(content, torch.device("cpu")), self.path)

    def _write_parts(self, content: dict[str, Any], module: StageModule, shard: Shard) -> None:
        """Write the parts of all processes, then the file that says which they are."""
        stamp = f"{content['next_epoch']}{'-done' if content['done'] else ''}"
        content, parts, taken = without_tables(content, module, shard, stamp)
        error: OSError | None = None
        try:
            for file, rows in files_of(parts, taken, shard, self.path):
                save_atomically(rows, file)
        except OSError as found:
            error = found
        all_wrote(error, module.device, self.path)
        if rank() == 0:
            try:
                save_atomically(move_data_to_device(content, torch.device("cpu")), self.path)
                remove_others(parts, self.path)
            except OSError as found:
                error = found
        all_wrote(error, module.device, self.path)

    def resume(self, module: StageModule) -> bool:
        """Go on with a killed run, if there is a checkpoint.

        Returns:
            Whether the stage is done.

        Raises:
            InputError: If the checkpoint is of another log, other seeds or networks.
        """
        if not self.path.exists():
            return False
        content = load_checked(self.path)
        try:
            with signals_first():
                return self._go_on(content, module)
        except InputError:
            raise
        except Exception as error:  # whatever a damaged or foreign checkpoint brings about
            raise InputError(
                f"{self.path} is not a checkpoint of this stage; remove it and run anew."
            ) from error

    def _fingerprint(self, module: StageModule) -> str:
        if self._log is None:
            space = module.estimator.space
            self._log = tensor_digest((space.n_users, space.n_items), space.keys, space.labels)
        return self._log

    def _go_on(self, content: dict[str, Any], module: StageModule) -> bool:
        if content.get("log", self._fingerprint(module)) != self._fingerprint(module):
            raise InputError(
                f"{self.path} was written while training on another log (other rows, labels or "
                "sizes); resume with the data of its start, or run anew."
            )
        if content["seeds"] != module.estimator.space.seeds.tolist():
            raise InputError(
                f"{self.path} was written with seeds {content['seeds']}; resume with those."
            )
        parts, shard = parts_in(content, self.path), current_shard()
        if (parts is None) != (shard is None):
            was, now = ("replicated", "sharded") if parts is None else ("sharded", "replicated")
            raise InputError(
                f"{self.path} was written with trainer.tables={was}, and this run has {now}, which "
                f"starts elsewhere; resume with trainer.tables={was}."
            )
        if parts is not None and shard is not None:
            read_parts(content, parts, self.path, shard)
        module.failures |= content.get("failures", {})
        module.keep(content.get("members", module.members))
        try:
            module.estimator.load_state_dict(content["estimator"])
        except RuntimeError as error:
            raise InputError(
                f"{self.path} holds networks of other names or sizes; resume with its settings."
            ) from error
        for name, state in {} if content["done"] else content["optimizers"].items():
            optimizer = module.learners[name].optimizer
            if optimizer is not None:
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.selection.load_state_dict(move_data_to_device(content["selection"], module.device))
        self.history.load_state_dict(content["history"])
        module.first_epoch = content["next_epoch"]
        self.stopwatch.seconds = float(content["seconds"])
        return bool(content["done"])
