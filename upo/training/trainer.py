"""Lightning's trainer for one stage: made, run, and left with the signals it has taken."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, ListConfig

from upo.core import distributed
from upo.core.console import Terminated, go_on, say
from upo.errors import InputError
from upo.training.settings import (
    OURS,
    alone,
    check_cores,
    check_trainer,
    device_count,
    place,
    slurm_tasks,
)
from upo.training.strategy import ExactStrategy

SWITCH = {"auto": None, "true": True, "false": False}
_launchers: list[Any] = []  # that hold processes of the current run


def switch(key: str, value: Any) -> bool | None:
    """A setting that may be left to the program, which is None.

    Raises:
        InputError: If it is none of auto, true and false.
    """
    if str(value).lower() not in SWITCH:
        raise InputError(f"{key} must be auto, true or false, got {value!r}.")
    return SWITCH[str(value).lower()]


def settle(config: DictConfig) -> None:
    """Check the trainer's settings and say which process of its run this is, before any work.

    Raises:
        InputError: If a setting cannot work here.
    """
    check_trainer(config)
    rank_zero_only.rank = place(config)  # type: ignore[attr-defined]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    device = _trainer(config, quiet).strategy.root_device
    fit_for_results = knows_float64(device)
    if not fit_for_results:
        _say_why(device.type)
    check_cores(config, device.type if fit_for_results else "cpu")


@cache
def _say_why(kind: str) -> None:
    """Say once why a run is on the CPU."""
    say(
        f"The device {kind} has no float64, in which results are measured, so this runs on the "
        "CPU; trainer.accelerator=cpu asks for that."
    )


def knows_float64(device: torch.device) -> bool:
    """Whether tensors of float64 can be made on a device; on Apple's GPU none can."""
    if device.type in ("cpu", "cuda"):
        return True
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def make_trainer(config: DictConfig | Mapping[str, Any], **run: Any) -> L.Trainer:
    """A Lightning trainer for one stage; several processes get the exact strategy.

    A device without float64 is left for the CPU.

    Raises:
        InputError: If Lightning cannot make one of these settings.
    """
    made = _trainer(config, run)
    if knows_float64(made.strategy.root_device):
        return made
    devices = device_count(config.get("devices", 1)) or 1
    return _trainer({**config, "accelerator": "cpu", "devices": devices}, run)


def _trainer(config: DictConfig | Mapping[Any, Any], run: Mapping[str, Any]) -> L.Trainer:
    switch("trainer.replay", config.get("replay", "auto"))
    settings: dict[str, Any] = {
        str(key): list(value) if isinstance(value, ListConfig) else value
        for key, value in config.items()
        if key not in OURS
    }
    settings.pop("strategy", None)
    if not alone(config) or distributed.world_size() > 1:
        settings["strategy"] = ExactStrategy()
    try:
        return L.Trainer(
            **settings,
            **run,
            **_environment(config),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(
            f"trainer.{key}={settings[key]}"
            for key in ("accelerator", "devices", "num_nodes", "precision")
            if key in settings
        )
        raise InputError(
            f"{given} is not available here ({' '.join(str(error).split())[:300].rstrip('.')}); "
            "try trainer.accelerator=cpu trainer.devices=1 trainer.precision=32-true."
        ) from error


def _environment(config: DictConfig | Mapping[str, Any]) -> Mapping[str, Any]:
    """How processes find one another, where Lightning's guess would take a stranger's variables."""
    if alone(config):  # also within one task of many of an srun
        return {"plugins": [LightningEnvironment()]}
    if slurm_tasks() > 1:  # upo resumes by itself: a requeued job must not be half Lightning's
        return {"plugins": [SLURMEnvironment(auto_requeue=False)]}
    return {}


class OwnSignals(Callback):
    """Gives signals back to whom they belonged before the trainer took them.

    Lightning notes a SIGTERM, goes on to the end of the epoch, and leaves with status 0.
    """

    def __init__(self) -> None:
        self.before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """After the trainer has set its handlers."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self.before.items():
                if handler is not None:
                    signal.signal(number, handler)

    def on_train_batch_end(self, *_: Any) -> None:
        """End a stage whose signal came where it could not be raised."""
        go_on()


class TimeLimit(Callback):
    """Stops a stage after the epoch in which the time was over.

    Args:
        deadline: On ``time.monotonic``'s clock.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.reached = False

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Ask the first process's clock, for all."""
        self.reached = trainer.strategy.broadcast(time.monotonic() >= self.deadline)
        if self.reached:
            trainer.should_stop = True


def settle_module(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Bring a stage where it will train and to its precision, as ``fit`` would later.

    What is then read from a checkpoint lands beside the parameters, in their precision.
    """
    trainer.precision_plugin.convert_module(module)
    module.to(trainer.strategy.root_device)


def fit(trainer: L.Trainer, module: L.LightningModule) -> None:
    """``trainer.fit``, out of which interrupts come as they went in.

    Raises:
        KeyboardInterrupt: On Ctrl-C, which Lightning turns into an exit with status 1.
    """
    if trainer.strategy.launcher is not None:
        _launchers.append(trainer.strategy.launcher)
    try:
        trainer.fit(module)
    except SIGTERMException:  # it came before the handlers were given back
        signal.raise_signal(signal.SIGTERM)
        raise
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise


@contextmanager
def companions() -> Iterator[None]:
    """End the processes that trainers within the block have started, if a signal ends the block.

    They wait for sums that would never come.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        for launcher in _launchers:
            launcher.kill(signal.SIGKILL)
        raise
    finally:
        _launchers.clear()
