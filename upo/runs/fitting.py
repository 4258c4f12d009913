"""The stages of one run, trained one after another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import Tensor

from upo.errors import UnfinishedError
from upo.training.callbacks import History, ReplicaSelection, StageProgress
from upo.training.checkpoint import StageCheckpoint
from upo.training.logs import EpochLogs, Stopwatch
from upo.training.stage import StageModule
from upo.training.trainer import OwnSignals, TimeLimit, fit, make_trainer, settle_module


@dataclass
class StageResult:
    """What a finished stage leaves behind."""

    name: str
    history: History
    best_epoch: Tensor | None  # [R]
    best: Tensor | None  # [R] selection value there, lower is better; NaN where it failed
    monitor: str
    steps_per_epoch: int
    seconds: float


class StageFitting:
    """Trains the stages of a run: from its checkpoints, within its time, without what diverged.

    Args:
        config: Composed configuration.
        folder: Where checkpoints go; None to write none.
        progress: Draw progress bars.
        trial_steps: Steps of a trial run; 0 for a whole one.
        limit: Seconds from now in which to train; None for any.

    Attributes:
        failures: Number of a replica -> what became of it, of those that diverged so far.
    """

    def __init__(
        self,
        config: DictConfig,
        folder: Path | None,
        *,
        progress: bool,
        trial_steps: int,
        limit: float | None,
    ) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.trial_steps = trial_steps
        self.deadline = None if limit is None else time.monotonic() + limit
        self.failures: dict[int, str] = {}

    def has_begun(self, module: StageModule) -> bool:
        """Whether there is a checkpoint of a stage."""
        path = self._checkpoint(module)
        return path is not None and path.exists()

    def _checkpoint(self, module: StageModule) -> Path | None:
        return self.folder and self.folder / "checkpoints" / f"{module.stage}.pt"

    def fit(
        self, module: StageModule, loggers: Sequence[Logger] = (), *, kept: bool = True
    ) -> StageResult:
        """Train a stage without replicas that failed before, and add those that fail in it.

        Args:
            module: The stage.
            loggers: Lightning loggers.
            kept: Whether it has a checkpoint.

        Raises:
            UnfinishedError: If the time was over before the stage was.
        """
        history, selection = History(), ReplicaSelection(module.plan.patience)
        stopwatch = Stopwatch()
        callbacks: list[L.Callback] = [stopwatch, selection, history, EpochLogs(), OwnSignals()]
        if self.progress:
            callbacks.append(StageProgress())
        checkpoint = None
        module.failures |= self.failures
        path = self._checkpoint(module)
        if kept and path is not None and not self.trial_steps:  # a trial is never finished
            checkpoint = StageCheckpoint(path, selection, history, stopwatch)
            callbacks.append(checkpoint)
        limit = None
        if self.deadline is not None:
            limit = TimeLimit(self.deadline)
            callbacks.append(limit)  # after the checkpoint
        trainer = make_trainer(
            self.config.trainer,
            callbacks=callbacks,
            logger=list(loggers) or False,
            enable_checkpointing=False,
            enable_progress_bar=self.progress,
        )
        settle_module(trainer, module)  # first: what is resumed lands where the parameters are
        done = False
        if checkpoint is not None and self.config.resume:
            done = checkpoint.resume(module)
        epochs = 0 if done else module.plan.epochs - module.first_epoch
        if self.trial_steps:
            epochs, module.steps_per_epoch = 1, min(module.steps_per_epoch, self.trial_steps)
        if selection.exhausted(module.first_epoch - 1, module.failures):
            epochs = 0
        if epochs:
            module.keep([m for m in module.members if m not in self.failures])
        trainer.fit_loop.max_epochs = epochs
        fit(trainer, module)
        if limit is not None and limit.reached and not self._complete(module, selection, history):
            raise UnfinishedError(
                f"trainer.max_time={self.config.trainer.max_time} was over after epoch "
                f"{history.epochs[-1] + 1} of {module.plan.epochs} of stage {module.stage!r}; "
                f"resume={self.folder} goes on from there."
            )
        module.whole_again()
        if not done:
            selection.restore(module.estimator.networks)
            if checkpoint is not None:
                checkpoint.write(module, done=True)
        for role in module.estimator.networks:
            module.estimator.stepped(str(role))
        self.failures |= module.failures
        if selection.best is not None:
            selection.best[list(self.failures)] = torch.nan
        return StageResult(
            name=module.stage,
            history=history,
            best_epoch=None if selection.best_epoch is None else selection.best_epoch.cpu(),
            best=None if selection.best is None else selection.best.cpu(),
            monitor=module.monitor,
            steps_per_epoch=module.steps_per_epoch,
            seconds=stopwatch.seconds,
        )

    @staticmethod
    def _complete(module: StageModule, selection: ReplicaSelection, history: History) -> bool:
        last = history.epochs[-1]
        return last + 1 >= module.plan.epochs or selection.exhausted(last, module.failures)
