"""What a stage hands to its loggers after each epoch, and the seconds it has trained."""

import time

import lightning as L  # noqa: N812
from lightning.pytorch.callbacks import Callback

from upo.training.stage import StageModule


class EpochLogs(Callback):
    """Means over replicas of an epoch, lost ones aside, at the steps a stage has taken by then.

    Stands before the checkpoint: what one holds has been logged, so a resumed run lacks no epoch.
    Epochs and steps are counted from the start of the stage, whether or not it was resumed.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the epoch."""
        if not isinstance(module, StageModule):
            return
        values = {
            name: float(value[value.isfinite()].mean()) for name, value in module.logged().items()
        }
        steps = (module.epoch + 1) * module.steps_per_epoch
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": module.epoch}, step=steps)
            logger.save()


class Stopwatch(Callback):
    """Seconds of training, those before a kill included; starting processes is none of it.

    Args:
        seconds: Those before this start.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._since = seconds, 0.0
        self._runs = False

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + (time.perf_counter() - self._since if self._runs else 0.0)

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._before = value

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Every process is there."""
        self._since, self._runs = time.perf_counter(), True

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Stop."""
        self._before, self._runs = self.seconds, False
