"""Callbacks of a stage: per-replica selection of epochs, history and progress."""

from collections.abc import Collection
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor, nn
from tqdm.auto import tqdm

from upo.training.history import Series
from upo.training.propensity import PropensityModule
from upo.training.stage import StageModule


class ReplicaSelection(Callback):
    """Keeps each replica's best epoch and stops when every replica has run out of patience.

    Snapshots are copies. (Public code keeps references to live tensors, so that restoring the best
    epoch does nothing.)

    Args:
        patience: Epochs without improvement that stop a replica; 0 for never.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best: Tensor | None = None  # [R], lower is better
        self.best_epoch: Tensor | None = None  # [R]
        self.snapshot: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Judge where a propensity starts, which may be its best: epoch -1."""
        if isinstance(module, PropensityModule) and self.best is None and not module.first_epoch:
            module.judge()
            self._take(module, -1)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Let those that have stopped or failed leave the stack, where that pays."""
        if not isinstance(module, StageModule):
            return
        self._note(module, module.epoch - 1)
        leaving = module.leaving()
        if leaving and module.smaller_pays(len(leaving)):
            module.keep([member for member in module.members if member not in leaving])

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compare and keep."""
        if not isinstance(module, StageModule):
            return
        self._take(module, module.epoch)
        self._note(module, module.epoch)
        if len(module.leaving()) == len(module.members):
            trainer.should_stop = True

    def _take(self, module: StageModule, number: int) -> None:
        value, networks = module.selection, module.estimator.networks
        if value is None:
            return
        value = torch.where(value.isnan(), torch.inf, value)  # never the best
        value = module.of_run(value, torch.inf)
        epoch = torch.full_like(value, number).long()
        if self.best is None or self.best_epoch is None:
            self.best, self.best_epoch = value.clone(), epoch
            self.snapshot = {
                k: module.of_run_rows(v.detach()) for k, v in networks.state_dict().items()
            }
        else:
            better = (value < self.best) & ~self.stopped(number - 1)
            self.best = torch.where(better, value, self.best)
            self.best_epoch = torch.where(better, epoch, self.best_epoch)
            _copy_replicas(networks, self.snapshot, better, module.members)

    def _note(self, module: StageModule, epoch: int) -> None:
        if self.best_epoch is not None:
            module.stopped = set(torch.nonzero(self.stopped(epoch)).flatten().tolist())

    def stopped(self, epoch: int) -> Tensor:
        """``[R]`` bool: replicas that have run out of patience by the end of this epoch.

        Their choice is made, as it would be alone, though they may train on with their stack.
        """
        assert self.best_epoch is not None  # set by the first validation
        if not self.patience:
            return torch.zeros_like(self.best_epoch, dtype=torch.bool)
        return epoch - self.best_epoch >= self.patience

    def exhausted(self, epoch: int, failed: Collection[int] = ()) -> bool:
        """Whether every replica has stopped or failed."""
        if self.best_epoch is None:
            return False
        return all(s or r in failed for r, s in enumerate(self.stopped(epoch).tolist()))

    def restore(self, networks: nn.ModuleDict) -> None:
        """Give every replica its best epoch's parameters."""
        if self.snapshot:
            networks.load_state_dict(self.snapshot)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"best": self.best, "best_epoch": self.best_epoch, "snapshot": self.snapshot}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a killed run's choice."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.snapshot = state_dict["snapshot"]


@torch.no_grad()
def _copy_replicas(
    networks: nn.ModuleDict, into: dict[str, Tensor], mask: Tensor, members: list[int]
) -> None:
    """Copy the parameters of the replicas in ``mask`` ([R] bool), which are ``members``."""
    which = torch.nonzero(mask).flatten()  # once: each time would wait for the device
    if not len(which):
        return
    numbers = {member: position for position, member in enumerate(members)}
    inside = which.new_tensor([numbers[member] for member in which.tolist()])
    for name, value in networks.state_dict().items():
        live, kept = value.reshape(len(members), -1), into[name].view(len(mask), -1)
        kept.index_copy_(0, which, live.index_select(0, inside))


class History(Callback):
    """Collects every epoch's logs of every replica, for the figures and the tables."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self._logs: dict[str, Series] = {}
        self._residuals = Series()

    @property
    def logs(self) -> dict[str, list[Tensor]]:
        """Name -> ``[R]`` of each epoch."""
        return {name: series.epochs() for name, series in self._logs.items()}

    @property
    def residuals(self) -> list[Tensor]:
        """``[R, M]`` of each validation of a game."""
        return self._residuals.epochs()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note the epoch."""
        if not isinstance(module, StageModule):
            return
        self.epochs.append(module.epoch)
        for name, value in module.epoch_logs.items():
            self._logs.setdefault(name, Series()).append(module.of_run(value))
        if isinstance(module, PropensityModule) and module.residuals is not None:
            self._residuals.append(module.of_run(module.residuals))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "epochs": torch.tensor(self.epochs, dtype=torch.int64),
            "logs": {name: series.tensor() for name, series in self._logs.items()},
            "residuals": self._residuals.tensor(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a killed run's history."""
        self.epochs = torch.as_tensor(state_dict["epochs"], dtype=torch.int64).tolist()
        self._logs = {name: Series(values) for name, values in state_dict["logs"].items()}
        residuals = state_dict["residuals"]
        self._residuals = Series(residuals if len(residuals) else None)


class StageProgress(ProgressBar):
    """One bar for a stage: epochs done, and the current validation figure."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Any = None
        self.enabled = True

    def disable(self) -> None:
        """Draw nothing (ranks other than 0)."""
        self.enabled = False

    def enable(self) -> None:
        """Draw."""
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the bar."""
        if not isinstance(module, StageModule):
            return
        self.bar = tqdm(
            total=module.plan.epochs,
            initial=module.first_epoch,
            desc=f"{module.stage:>12}",
            unit="epoch",
            mininterval=0.2,
            dynamic_ncols=True,
            disable=not self.enabled,
        )

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Advance."""
        figures = {
            name.rsplit("/", 1)[-1]: f"{float(value):.4f}"
            for name, value in trainer.progress_bar_metrics.items()
        }
        self.bar.set_postfix(figures, refresh=False)
        self.bar.update(1)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, _: BaseException) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        if self.bar is not None:
            self.bar.close()
