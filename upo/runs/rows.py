"""Many rows, one after another or at once: each resumes, and one that fails ends no other."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm.auto import tqdm

from upo.core.console import explained, one_line, signals_first
from upo.core.parallel import in_processes
from upo.core.transcript import LOG, copied_to
from upo.runs.finished import finish, finished
from upo.runs.folder import run
from upo.runs.results import Row
from upo.runs.search import Budget
from upo.runs.searches import Search, with_values

TUNED = "tuned.yaml"  # in the folder of a row: the values that its search has found


@dataclass(frozen=True)
class Task:
    """A row to be run.

    Attributes:
        estimator: Its name.
        config: Of its run.
        folder: Of its run.
        overrides: Settings of every run, for its search.
        search: The space and the budget of its search; None for none.
    """

    estimator: str
    config: DictConfig
    folder: Path
    overrides: Sequence[str]
    search: tuple[DictConfig, Budget] | None


@dataclass(frozen=True)
class Done:
    """A row that ended: its rows of results or why there are none, and how long it took.

    ``sought`` and ``took`` are seconds; ``took`` is None where the run had finished before.
    """

    estimator: str
    rows: list[Row] | None = None
    failed: str | None = None
    sought: float = 0.0
    took: float | None = None


def run_rows(tasks: Sequence[Task], jobs: int) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Run rows, one after another or several at once.

    Args:
        tasks: At least one.
        jobs: Processes, at least 1.

    Returns:
        Estimator -> rows of results, of those that finished, and estimator -> why not, of others.

    Raises:
        InputError: If the system has ended a process.
    """
    runs: dict[str, list[Row]] = {}
    failed: dict[str, str] = {}
    jobs = min(jobs, len(tasks))
    start, made = time.perf_counter(), 0
    with tqdm(total=len(tasks), unit="estimator") as bar:
        for number, done in enumerate(_ended(tasks, jobs, bar), start=1):
            bar.update()
            if done.rows is None:
                failed[done.estimator] = done.failed or ""
                tqdm.write(f"{done.estimator} failed: {done.failed}")
                continue
            runs[done.estimator] = done.rows
            if done.took is not None:
                made += 1
                left = (time.perf_counter() - start) / made * (len(tasks) - number)
                tqdm.write(
                    f"{done.estimator}: search {done.sought:.0f} s, run {done.took:.0f} s; "
                    f"{number} of {len(tasks)} rows, about {left / 60:.0f} min left at this pace"
                )
    return runs, failed


def _ended(tasks: Sequence[Task], jobs: int, bar: tqdm) -> Iterator[Done]:
    """Rows as they end; the bar names what runs."""
    if jobs > 1:
        bar.set_description(f"{jobs} at once")
        yield from in_processes(_row, tasks, jobs)
        return
    for task in tasks:
        bar.set_description(f"{task.estimator:>10}")
        yield _row(task)


def _row(task: Task) -> Done:
    """Search and run a row, or read what an earlier call has left."""
    failed: dict[str, str] = {}
    with told(task.estimator, failed):
        begun = time.perf_counter()
        config = _searched(task)
        sought = time.perf_counter() - begun
        rows = finished(task.folder, config)
        if rows is not None:
            return Done(task.estimator, rows)
        with copied_to(task.folder / LOG):
            rows = run(config, task.folder, chatty=False)
        finish(task.folder, config)
        took = time.perf_counter() - begun - sought
        return Done(task.estimator, rows, sought=sought, took=took)
    return Done(task.estimator, failed=failed[task.estimator])


def _searched(task: Task) -> DictConfig:
    """The configuration with the values of its own search, which goes on where it stopped."""
    if task.search is None:
        return task.config
    space, budget = task.search
    search = Search([*task.overrides, f"estimator={task.estimator}"], space, budget)
    found = search.run(task.folder / TUNED, task.folder / "study.journal", progress=False)
    return with_values(task.config, found, budget)


@contextmanager
def told(estimator: str, failed: dict[str, str]) -> Iterator[None]:
    """Why the block failed, if it does: a failing row must not end the others."""
    try:
        with signals_first():
            yield
    except Exception as error:
        sentence = explained(error)
        failed[estimator] = one_line(sentence or f"{type(error).__name__}: {error}")
