"""What a command says at the terminal, and how it ends: one sentence for what a person can fix."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf.errors import OmegaConfBaseException

from upo.errors import InputError


def first_process() -> bool:
    """Whether this process writes and prints: the first, under any launcher."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def say(text: str) -> None:
    """Print for the person at the terminal, once however many processes run."""
    if first_process():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def sentences(function: Callable[[], Any]) -> Any:
    """Call a function; whatever a person can mend ends in one sentence and exit status 1."""
    try:
        return function()
    except (
        InputError,
        HydraException,
        OmegaConfBaseException,
        MisconfigurationException,
        OSError,
    ) as error:
        message = " ".join(str(cause(error)).split()) or type(error).__name__
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; what was written is complete.\n")
        raise SystemExit(130) from None


def cause(error: BaseException) -> BaseException:
    """The innermost cause that is meant for a person."""
    cause: BaseException | None = error
    found = error
    while cause is not None:
        if isinstance(cause, InputError):
            found = cause
        cause = cause.__cause__
    return found


def quiet() -> None:
    """Silence what libraries say about themselves."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", module=r"torchmetrics\..*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
