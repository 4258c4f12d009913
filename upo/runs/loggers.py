"""Loggers of a run: CSV, TensorBoard or Weights & Biases, with the config and the figures."""

import configparser
import netrc
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf

from upo.errors import InputError


def make_loggers(config: DictConfig) -> list[Logger]:
    """Build the configured logger and hand it the resolved config.

    Weights & Biases runs offline when there is no account to send to.

    Raises:
        InputError: If the logger's package is not installed, or another program's cannot start.
    """
    if config.get("logger") is None:
        return []
    node = config.logger
    target = str(node.get("_target_"))
    if "wandb" in target.lower() and not _wandb_account():
        os.environ.setdefault("WANDB_MODE", "offline")
    before = _taken_up(node, target) if config.resume else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger: Logger = instantiate(node, **before)
            values: Any = OmegaConf.to_container(config, resolve=True)
            logger.log_hyperparams(values)
    except ModuleNotFoundError as error:
        raise InputError(
            f"logger needs the package {error.name!r}; install it with "
            f"pip install 'upo[{'wandb' if 'andb' in node._target_ else 'tensorboard'}]'."
        ) from error
    except (HydraException, OSError):
        raise
    except Exception as error:
        if target.startswith("upo."):
            raise
        # whatever an account, a server or a variable of somebody else's program brings about
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{target.rpartition('.')[2]} cannot start ({reason}); fix what it names, or "
            "choose logger=csv."
        ) from error
    return [logger]


def _taken_up(node: DictConfig, target: str) -> dict[str, Any]:
    """Arguments with which a logger goes on where that of the first start was.

    TensorBoard reads all files of its folder as one run, so it needs none.
    """
    if target.endswith(".MetricsCsv"):
        return {"resume": True}
    if "wandb" in target.lower() and node.get("id") is None:
        # wandb/run-TIME-ID, or offline-run-TIME-ID
        folders = sorted(Path(node.save_dir, "wandb").glob("*run-*-*"), key=_time)
        if folders:
            return {"id": folders[-1].name.rpartition("-")[2], "resume": "allow"}
    return {}


def _time(folder: Path) -> str:
    return folder.name.removeprefix("offline-")


def _wandb_account() -> bool:
    """Whether wandb would find a key: in the environment, or in a netrc file for its server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(_wandb_server()).hostname or "api.wandb.ai"
    given = os.environ.get("NETRC")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        try:  # a file that is named is read whatever its mode, as wandb does
            found = netrc.netrc(str(Path(path).expanduser()))
        except (OSError, netrc.NetrcParseError):
            continue
        return found.authenticators(host) is not None
    return False


def _wandb_server() -> str:
    """The server of wandb's settings."""
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"]
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    settings = configparser.ConfigParser(interpolation=None)
    for path in (Path(folder).expanduser() / "settings", Path("wandb") / "settings"):
        with suppress(OSError, configparser.Error, UnicodeError):
            settings.read(path)
    return settings.get("default", "base_url", fallback="https://api.wandb.ai")


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
