"""Tune one estimator: ``python -m upo.tuning dataset=coat estimator=upo_dr protocol=holdout``.

Trials are judged by the protocol's own selection metric at their best epoch, never by the test set
unless the protocol says so. The winner is written to ``tuned/`` in the user's configuration folder
(``UPO_CONFIG_DIR``), which runs of the same protocol, dataset and estimator look up before the
values that come with upo; of a table, runs on the same log alone. The study lies in ``studies/``
beside it: the same command goes on with a search that was killed, and with one of fewer trials.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upo.core.arguments import Command, argument
from upo.core.console import advice, command, quiet, say
from upo.core.locks import locked
from upo.runs.compose import user_dir
from upo.runs.overrides import ABOUT_OVERRIDES, settings_of_runs
from upo.runs.search import Budget, Found
from upo.runs.searches import Search, search_named


@dataclass(frozen=True)
class Settings:
    """What the command line takes beside the settings of the runs."""

    search: str = argument("the space to search, a file of conf/search", default="default")
    trials: int | None = argument("how many; the search says if not given", default=None, value="N")
    batch: int | None = argument(
        "trials of a round, which train together as replicas; the search says if not given",
        default=None,
        value="N",
    )
    out: Path | None = argument(
        "where the winner is written, instead of where later runs pick it up",
        default=None,
        value="FOLDER",
    )


COMMAND = Command(
    "tune",
    "Search hyperparameters of an estimator, judged as the protocol judges epochs",
    Settings,
    ("dataset=coat estimator=upo_dr", "dataset=coat estimator=ips trials=64 batch=16 out=FOLDER"),
    rest=f"{ABOUT_OVERRIDES} Keys given so are not searched.",
    module="upo.tuning",
)
_OURS = {
    "logger": "trials are not logged; upo train logs one run",
    "resume": "the same command goes on with a search that was killed",
    "keep": "the same command keeps the trials that it has",
    "compare_with": "one estimator is tuned at a time",
    "figures": "trials draw none",
    "trainer.fast_dev_run": "trials=4 batch=4 is a short search",
    "trainer.max_time": "trials=N says how long a search takes",
}


def tune(arguments: Sequence[str]) -> Path:
    """Search, report and write the winner.

    Args:
        arguments: ``search=NAME``, ``trials=``, ``batch=``, ``out=FOLDER`` and overrides of
            ``train.py``; overridden keys are not searched.

    Returns:
        The file that was written.

    Raises:
        InputError: If the search does not exist or nothing is left to search.
    """
    given, rest = COMMAND.parse(arguments)
    overrides = settings_of_runs(rest, "tune", _OURS)
    wanted, budget = search_named(given.search, overrides, given.trials, given.batch)
    search = Search(overrides, wanted, budget)
    path = (given.out if given.out is not None else user_dir() / "tuned") / search.place
    kept = (given.out if given.out is not None else user_dir()) / "studies" / search.place
    kept = kept.with_suffix(".journal")
    lock = path.with_name(f".{path.name}.lock")
    with (
        locked(lock, f"the search for {path}", "wait for it, or choose another out="),
        advice("the same command goes on with the trials that it has"),
    ):
        space = search.space
        say(f"{search.base.estimator.name}: {budget}, over {len(space.ranges)} values of each")
        say(f"trial and {len(space.structure)} of each round; the study lies in {kept}")
        _report(search.run(path, kept), budget, path)
    return path


def _report(found: Found, budget: Budget, path: Path) -> None:
    lines = [f"Best of {budget}: {found.value:.5f}"]
    lines += [f"  {key}={value:g}" for key, value in found.overrides.items()]
    lines += [f"Note: {text}" for text in found.remarks]
    sys.stdout.write("\n".join([*lines, f"{path}\n"]))


def main(words: Sequence[str]) -> None:
    """The command."""
    tune(words)


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
