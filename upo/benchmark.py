"""Every estimator in one command: ``python -m upo.benchmark dataset=coat estimators=all seeds=10``.

Each estimator is a run with a folder of its own. A finished run of the same configuration is not
repeated, so an interrupted benchmark resumes where it stopped; a failing row is reported and the
others go on. ``tune=small`` searches the values of every row first, all with the same budget.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm.auto import tqdm

from upo.core.arguments import Command, argument, nearest
from upo.core.console import advice, command, quiet
from upo.core.files import write_atomically
from upo.core.given import whole
from upo.core.locks import NAME, locked
from upo.core.text import file_name
from upo.errors import InputError
from upo.report.table import markdown
from upo.runs.compose import choices, composed
from upo.runs.overrides import ABOUT_OVERRIDES, settings_of_runs
from upo.runs.results import Row, write_rows
from upo.runs.rows import Task, run_rows, told
from upo.runs.search import Budget
from upo.runs.searches import search_named
from upo.runs.tuned import NOT_TUNED, of_target


@dataclass(frozen=True)
class Settings:
    """What the command line takes beside the settings of the runs."""

    estimators: tuple[str, ...] = argument(
        "names of estimators, or all", default=("all",), value="A,B"
    )
    tune: str | None = argument(
        "search every row's values first with this file of conf/search, such as small",
        default=None,
        value="NAME",
    )
    trials: int | None = argument(
        "of each search; its file says if not given", default=None, value="N"
    )
    batch: int | None = argument(
        "trials of a round, which train together; the file says if not given",
        default=None,
        value="N",
    )
    jobs: int = argument(
        "rows that train at once, each in a process of its own", default=1, value="N"
    )
    out: Path = argument(
        "gets the table as CSV and Markdown", default=Path("outputs") / "tables", value="DIR"
    )


RUNS = Path("outputs") / "benchmark"
COMMAND = Command(
    "benchmark",
    "Run many estimators on one dataset and write one table",
    Settings,
    (
        "dataset=coat estimators=all seeds=10",
        "dataset=coat estimators=naive,ips,upo_dr",
        "dataset=coat estimators=all seeds=10 tune=small trials=16 jobs=2",
    ),
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


@dataclass(frozen=True)
class Wanted:
    """What a benchmark is to do.

    Attributes:
        rows: Names of estimators.
        out: Gets the table.
        overrides: Settings of every run.
        search: The space and the budget of every row's search; None for none.
        jobs: Rows that train at once.
    """

    rows: list[str]
    out: Path
    overrides: list[str]
    search: tuple[DictConfig, Budget] | None = None
    jobs: int = 1

    @property
    def words(self) -> list[str]:
        """Settings of every run; searched values take the place of tuned ones."""
        return self.overrides if self.search is None else [*self.overrides, NOT_TUNED]


def split_arguments(arguments: Sequence[str]) -> Wanted:
    """What the words of the command line ask for.

    Raises:
        InputError: If an estimator or a search is unknown, none is named, or jobs is no count.
    """
    given, rest = COMMAND.parse(arguments)
    overrides = settings_of_runs(rest, "benchmark", _OURS)
    known = choices("estimator", overrides)
    jobs = whole("jobs", given.jobs, least=1, example=2)
    rows = known if given.estimators == ("all",) else list(dict.fromkeys(given.estimators))
    missing = [name for name in rows if name not in known]
    if missing:
        near = nearest(missing[0], known)
        hint = f" did you mean {near}?" if near else ""
        raise InputError(
            f"estimators={','.join(given.estimators)}: {missing[0]!r} is unknown;{hint} known are "
            f"{', '.join(known)}, or all."
        )
    if given.tune is None:
        for key in ("trials", "batch"):
            if getattr(given, key) is not None:
                raise InputError(f"{key}= is of a search; say which, as in tune=small {key}=8.")
        return Wanted(rows, given.out, overrides, jobs=jobs)
    search = search_named(given.tune, overrides, given.trials, given.batch)
    return Wanted(rows, given.out, overrides, search, jobs)


def compose_run(estimator: str, overrides: Sequence[str]) -> DictConfig:
    """Configuration of one row."""
    words = ["logger=none", "figures=false", *overrides, f"estimator={estimator}"]
    return composed([*words, *of_target(words)])


def benchmark(arguments: Sequence[str]) -> int:
    """Run every estimator and write the tables.

    Args:
        arguments: ``estimators=``, ``out=`` and overrides of ``train.py``.

    Returns:
        Exit status: 1 if a row failed.
    """
    wanted = split_arguments(arguments)
    failed: dict[str, str] = {}
    configs = {}
    for estimator in wanted.rows:
        with told(estimator, failed):
            configs[estimator] = compose_run(estimator, ["progress=false", *wanted.words])
        if estimator in failed:
            tqdm.write(f"{estimator} failed: {failed[estimator]}")
    runs: dict[str, list[Row]] = {}
    name = ""
    if configs:
        name = _name(next(iter(configs.values())), wanted)
        folder, table = RUNS / name, wanted.out / name
        with (
            locked(table.with_name(f".{name}.lock"), f"the table {table}.csv", _WAIT),
            locked(folder / NAME, f"the benchmark {folder}", _WAIT),
        ):
            tasks = [
                Task(row, config, folder / row, wanted.overrides, wanted.search)
                for row, config in configs.items()
            ]
            runs, ended = run_rows(tasks, wanted.jobs)
            failed |= ended
    order = [row for row in wanted.rows if row in runs]
    return _table({row: runs[row] for row in order}, failed, wanted.out / name, arguments)


def _name(config: DictConfig, wanted: Wanted) -> str:
    """Of the table and of the folder of its runs: what tells one benchmark from another."""
    parts = [str(config.dataset.name), str(config.protocol.name)]
    backbones = [word for word in wanted.overrides if word.startswith("backbone=")]
    parts += [word.partition("=")[2] for word in backbones[-1:]]
    if config.propensity.withhold:
        parts.append(f"withhold{config.propensity.withhold:g}")
    if wanted.search is not None:
        budget = wanted.search[1]
        parts.append(f"tuned{budget.trials}x{budget.seeds}")
    return file_name("-".join(parts))


def _table(
    runs: Mapping[str, list[Row]], failed: Mapping[str, str], path: Path, arguments: Sequence[str]
) -> int:
    if not runs:
        raise InputError("No estimator finished: " + "; ".join(dict.fromkeys(failed.values())))
    first = next(iter(runs.values()))[0]
    dataset, protocol = str(first["dataset"]), str(first["protocol"])
    command = "python -m upo.benchmark " + shlex.join(arguments)
    table = markdown(runs, command=command, dataset=dataset, protocol=protocol, failed=failed)
    csv, page = (path.with_name(path.name + end) for end in (".csv", ".md"))
    write_rows(csv, [row for rows in runs.values() for row in rows])
    write_atomically(page, table)
    sys.stdout.write(f"{table}\nWritten to {csv} and .md, the runs to {RUNS / path.name}\n")
    return 1 if failed else 0


def main(words: Sequence[str]) -> int:
    """The command."""
    with advice("the same command goes on where it stopped"):
        return benchmark(words)


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
