"""The console command ``upo``: seven commands under one name, each imported when it is called."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from upo.core.arguments import HELP, nearest, table
from upo.core.console import command, quiet
from upo.errors import InputError

# name: (module and function of its words, what it does)
COMMANDS = {
    "train": (
        "upo.cli:train",
        "train and measure an estimator; a run folder holds it all",
    ),
    "predict": (
        "upo.predict:main",
        "predictions, propensities, recommendations of a run",
    ),
    "audit": ("upo.audit.__main__:main", "check given propensities: calibration, balance, overlap"),
    "evaluate": (
        "upo.counterfactual.__main__:main",
        "metrics of any model's scores, corrected for the bias of a log",
    ),
    "tune": ("upo.tuning:main", "search hyperparameters of an estimator; later runs pick them up"),
    "benchmark": ("upo.benchmark:main", "run many estimators on a dataset and write one table"),
    "report": ("upo.report.__main__:main", "tables and figures of finished runs"),
}


def overview() -> str:
    """What ``upo --help`` prints."""
    return (
        "Debiased recommendation with unified propensity optimization.\n\n"
        "  upo COMMAND [key=value ...]\n\n"
        + table((name, about) for name, (_, about) in COMMANDS.items())
        + "\n\nupo COMMAND --help lists a command's keys; upo --version prints the version.\n"
    )


def dispatch(words: list[str]) -> int | None:
    """Call the command that the first word names with the others.

    Returns:
        The command's exit status, if it has one.

    Raises:
        InputError: If there is no such command.
    """
    if not words or words[0] in HELP:
        sys.stdout.write(overview())
        return 0
    name, rest = words[0], words[1:]
    if name in ("--version", "-V"):
        sys.stdout.write(f"upo {_version()}\n")
        return 0
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f" did you mean upo {near}?" if near else ""
        raise InputError(
            f"upo {name} is no command;{hint} known are {', '.join(COMMANDS)} (upo --help)."
        )
    quiet()
    module, _, function = COMMANDS[name][0].partition(":")
    run = getattr(import_module(module), function)
    quiet()  # Lightning speaks up again when it is imported
    status: int | None = run(rest)
    return status


def _version() -> str:
    try:
        return version("upo")
    except PackageNotFoundError:  # a checkout that is not installed
        return "of a checkout that is not installed"


def main() -> None:
    """Entry point of ``upo`` and ``python -m upo``."""
    command(lambda: dispatch(sys.argv[1:]))


if __name__ == "__main__":
    main()
