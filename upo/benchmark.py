"""Every estimator in one command: ``python -m upo.benchmark dataset=coat estimators=all seeds=10``.

Each estimator is a run with a folder of its own. A finished run of the same configuration is not
repeated, so an interrupted benchmark resumes where it stopped; a failing row is reported and the
others go on.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm.auto import tqdm

from upo.core.arguments import Command, argument, nearest
from upo.core.console import advice, command, explained, one_line, quiet
from upo.core.files import write_atomically
from upo.core.locks import NAME, locked
from upo.core.transcript import LOG, copied_to
from upo.errors import InputError
from upo.report.table import markdown
from upo.runs.compose import choices, composed
from upo.runs.finished import finish, finished
from upo.runs.folder import run
from upo.runs.overrides import ABOUT_OVERRIDES, settings_of_runs
from upo.runs.results import Row, write_rows


@dataclass(frozen=True)
class Settings:
    """What the command line takes beside the settings of the runs."""

    estimators: tuple[str, ...] = argument(
        "names of estimators, or all", default=("all",), value="A,B"
    )
    out: Path = argument("gets the table as CSV and Markdown", default=Path("results"), value="DIR")


RUNS = Path("outputs") / "benchmark"
COMMAND = Command(
    "benchmark",
    "Run many estimators on one dataset and write one table",
    Settings,
    ("dataset=coat estimators=all seeds=10", "dataset=coat estimators=naive,ips,upo_dr"),
    rest=ABOUT_OVERRIDES,
    notes=(
        "Finished runs are kept under outputs/benchmark and not repeated: the same command goes "
        "on where it stopped. A row that fails is reported, the others go on, and the status is 1.",
    ),
)
_OURS = {
    "estimator": "estimators=A,B names the rows",
    "logger": "runs of a benchmark are not logged; upo train logs one",
    "resume": "the same command goes on where it stopped",
    "keep": "finished runs are kept anyway",
    "compare_with": "estimators=A,B names the rows",
}
_WAIT = "wait for it to end"


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], Path, list[str]]:
    """Estimators, output folder and the overrides that every run gets.

    Raises:
        InputError: If an estimator is unknown or none is named.
    """
    given, rest = COMMAND.parse(arguments)
    overrides = settings_of_runs(rest, "benchmark", _OURS)
    known = choices("estimator", overrides)
    chosen = known if given.estimators == ("all",) else list(dict.fromkeys(given.estimators))
    missing = [name for name in chosen if name not in known]
    if missing:
        near = nearest(missing[0], known)
        hint = f" did you mean {near}?" if near else ""
        raise InputError(
            f"estimators={','.join(given.estimators)}: {missing[0]!r} is unknown;{hint} known are "
            f"{', '.join(known)}, or all."
        )
    return chosen, given.out, overrides


def compose_run(estimator: str, overrides: Sequence[str]) -> DictConfig:
    """Configuration of one row."""
    return composed(["logger=none", "figures=false", *overrides, f"estimator={estimator}"])


def benchmark(arguments: Sequence[str]) -> int:
    """Run every estimator and write the tables.

    Args:
        arguments: ``estimators=``, ``out=`` and overrides of ``train.py``.

    Returns:
        Exit status: 1 if a row failed.
    """
    chosen, out, overrides = split_arguments(arguments)
    failed: dict[str, str] = {}
    configs = {}
    for estimator in chosen:
        with _told(estimator, failed):
            configs[estimator] = compose_run(estimator, ["progress=false", *overrides])
    runs: dict[str, list[Row]] = {}
    if configs:
        config = next(iter(configs.values()))
        name = f"{config.dataset.name}-{config.protocol.name}"
        folder = RUNS / name
        with (
            locked(out / f".{name}.lock", f"the table {out / name}.csv", _WAIT),
            locked(folder / NAME, f"the benchmark {folder}", _WAIT),
        ):
            runs = _rows(configs, folder, failed)
    order = [name for name in chosen if name in runs]
    return _table({name: runs[name] for name in order}, failed, out, arguments)


def _rows(
    configs: Mapping[str, DictConfig], folder: Path, failed: dict[str, str]
) -> dict[str, list[Row]]:
    """Rows of each estimator that finished; why the others did not is added to ``failed``."""
    runs: dict[str, list[Row]] = {}
    bar = tqdm(configs.items(), unit="estimator")
    for estimator, config in bar:
        bar.set_description(f"{estimator:>10}")
        with _told(estimator, failed):
            rows = finished(folder / estimator, config)
            if rows is None:
                with copied_to(folder / estimator / LOG):
                    rows = run(config, folder / estimator, chatty=False)
                finish(folder / estimator, config)
            runs[estimator] = rows
    return runs


@contextmanager
def _told(estimator: str, failed: dict[str, str]) -> Iterator[None]:
    """A failing row must not end the others."""
    try:
        yield
    except Exception as error:
        sentence = explained(error)
        failed[estimator] = one_line(sentence or f"{type(error).__name__}: {error}")
        tqdm.write(f"{estimator} failed: {failed[estimator]}")


def _table(
    runs: Mapping[str, list[Row]], failed: Mapping[str, str], out: Path, arguments: Sequence[str]
) -> int:
    if not runs:
        raise InputError("No estimator finished: " + "; ".join(dict.fromkeys(failed.values())))
    first = next(iter(runs.values()))[0]
    dataset, protocol = str(first["dataset"]), str(first["protocol"])
    stem = f"{dataset}-{protocol.split()[0]}"
    command = "python -m upo.benchmark " + shlex.join(arguments)
    table = markdown(runs, command=command, dataset=dataset, protocol=protocol, failed=failed)
    write_rows(out / f"{stem}.csv", [row for rows in runs.values() for row in rows])
    write_atomically(out / f"{stem}.md", table)
    sys.stdout.write(f"{table}\nWritten to {out / stem}.csv and .md, the runs to {RUNS}\n")
    return 1 if failed else 0


def main(words: Sequence[str]) -> int:
    """The command."""
    with advice("the same command goes on where it stopped"):
        return benchmark(words)


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
