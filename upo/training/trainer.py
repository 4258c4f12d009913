"""The Lightning trainer of a stage."""

from typing import Any

import lightning as L  # noqa: N812
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from upo.core import distributed
from upo.errors import InputError
from upo.training.strategy import ExactStrategy

SWITCH = {"auto": None, "true": True, "false": False}


def switch(key: str, value: Any) -> bool | None:
    """A setting that may be left to the program, which is None.

    Raises:
        InputError: If it is none of auto, true and false.
    """
    if str(value).lower() not in SWITCH:
        raise InputError(f"{key} must be auto, true or false, got {value!r}.")
    return SWITCH[str(value).lower()]


def make_trainer(config: DictConfig, **run: Any) -> L.Trainer:
    """A Lightning trainer for one stage; several processes get the exact strategy."""
    settings: dict[str, Any] = {str(key): value for key, value in config.items()}
    switch("trainer.replay", settings.pop("replay", "auto"))
    devices, nodes = settings.get("devices", 1), settings.get("num_nodes", 1)
    several = devices not in (1, "1", [0]) or nodes > 1 or distributed.world_size() > 1
    if several and settings.get("strategy", "auto") == "auto":
        settings["strategy"] = ExactStrategy()
    try:
        return L.Trainer(
            **settings,
            **run,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise InputError(
            f"trainer.accelerator={settings.get('accelerator')} with trainer.devices={devices} is "
            f"not to be had here ({' '.join(str(error).split())}); try trainer.accelerator=cpu."
        ) from error
