"""Loggers of a run: CSV, TensorBoard or Weights & Biases, with the config and the figures."""

import netrc
import os
import warnings
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf

from upo.errors import InputError


def make_loggers(config: DictConfig) -> list[Logger]:
    """Build the configured logger and hand it the resolved config.

    Weights & Biases runs offline when there is no account to send to.

    Raises:
        InputError: If the logger's package is not installed.
    """
    if config.get("logger") is None:
        return []
    node = config.logger
    if "wandb" in str(node.get("_target_")).lower() and not _wandb_account():
        os.environ.setdefault("WANDB_MODE", "offline")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger: Logger = instantiate(node)
    except ModuleNotFoundError as error:
        raise InputError(
            f"logger needs the package {error.name!r}; install it with "
            f"pip install 'upo[{'wandb' if 'andb' in node._target_ else 'tensorboard'}]'."
        ) from error
    values: Any = OmegaConf.to_container(config, resolve=True)
    logger.log_hyperparams(values)
    return [logger]


def _wandb_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def log_final(loggers: list[Logger], metrics: dict[str, float], figures: dict[str, Path]) -> None:
    """Log the final figures of a run and its pictures."""
    for logger in loggers:
        logger.log_metrics({f"final/{name}": value for name, value in metrics.items()})
        if isinstance(logger, WandbLogger):
            for name, path in figures.items():
                logger.log_image(f"figures/{name}", [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            for name, path in figures.items():
                logger.experiment.add_image(f"figures/{name}", _pixels(path), dataformats="HWC")
        logger.save()
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # waits until the record is on disk


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))
