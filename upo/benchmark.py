"""Every estimator in one command: ``python -m upo.benchmark dataset=coat estimators=all seeds=10``.

Each estimator is a run with a folder of its own. A finished run of the same configuration is not
repeated, so an interrupted benchmark resumes where it stopped; a failing row is reported and the
others go on.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tqdm.auto import tqdm

from upo.core.console import quiet, sentences
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.report.table import markdown
from upo.runs.finished import begin, finish, finished
from upo.runs.folder import run
from upo.runs.results import Row, write_rows

CONF = Path(__file__).resolve().parent.parent / "conf"


def all_estimators() -> list[str]:
    """Names of every estimator in ``conf/estimator``."""
    return sorted(path.stem for path in (CONF / "estimator").glob("*.yaml"))


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], Path, list[str]]:
    """Estimators, output folder and the overrides that every run gets.

    Raises:
        InputError: If an estimator is unknown or none is named.
    """
    options = {"estimators": "all", "out": "results"}
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in options:
            options[key] = value
        else:
            overrides.append(argument)
    known = all_estimators()
    named = options["estimators"].strip("[]")
    chosen = (
        known if named == "all" else [name.strip() for name in named.split(",") if name.strip()]
    )
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise InputError(
            f"estimators={options['estimators']} names {unknown or 'nothing'}; known are "
            f"{', '.join(known)}, or all."
        )
    return chosen, Path(options["out"]), overrides


def compose_run(estimator: str, overrides: Sequence[str]) -> DictConfig:
    """Configuration of one row."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(
            "train",
            overrides=["logger=none", "figures=false", *overrides, f"estimator={estimator}"],
        )


def benchmark(arguments: Sequence[str]) -> int:
    """Run every estimator and write the tables.

    Args:
        arguments: ``estimators=``, ``out=`` and overrides of ``train.py``.

    Returns:
        Exit status: 1 if a row failed.
    """
    chosen, out, overrides = split_arguments(arguments)
    runs: dict[str, list[Row]] = {}
    failed: dict[str, str] = {}
    folders = Path("outputs") / "benchmark"
    bar = tqdm(chosen, unit="estimator")
    for estimator in bar:
        bar.set_description(f"{estimator:>10}")
        try:
            config = compose_run(estimator, ["progress=false", *overrides])
            folder = folders / f"{config.dataset.name}-{config.protocol.name}" / estimator
            rows = finished(folder, config)
            if rows is None:
                begin(folder)
                rows = run(config, folder, chatty=False)
                finish(folder, config)
            runs[estimator] = rows
        except Exception as error:  # a failing row must not end the others
            failed[estimator] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            tqdm.write(f"{estimator} failed: {failed[estimator]}")
    if not runs:
        raise InputError("No estimator finished: " + "; ".join(failed.values()))
    first = next(iter(runs.values()))[0]
    dataset, protocol = str(first["dataset"]), str(first["protocol"])
    stem = f"{dataset}-{protocol.split()[0]}"
    command = "python -m upo.benchmark " + shlex.join(arguments)
    table = markdown(runs, command=command, dataset=dataset, protocol=protocol, failed=failed)
    write_rows(out / f"{stem}.csv", [row for rows in runs.values() for row in rows])
    write_atomically(out / f"{stem}.md", table)
    sys.stdout.write(table + f"\nWritten to {out / stem}.csv and .md\n")
    return 1 if failed else 0


if __name__ == "__main__":
    quiet()
    raise SystemExit(sentences(lambda: benchmark(sys.argv[1:])))
