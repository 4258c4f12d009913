"""Finished runs, found in folders and read into one frame."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from upo.core.archive import ArchiveError, regular
from upo.core.dotted import dotted
from upo.core.yaml_files import YamlError, read_yaml
from upo.errors import InputError
from upo.metrics.names import DEFINITIONS, DIAGNOSED
from upo.runs.results import FIXED, LAST, seed_failed

BYTES = 2**24  # of a results.csv; one of a thousand seeds has a few hundred thousand
DIAGNOSTICS = "diagnostics"  # column: the definition of the four diagnostics
DEFAULT_DIAGNOSTICS = "correct"
GROUP = ["dataset", "protocol", DIAGNOSTICS]  # what one table may not mix
TEXT = {*FIXED, DIAGNOSTICS} - {"seed"}
CONFIGS = (Path(".hydra") / "config.yaml", Path("config.yaml"))
WORLD = "dataset.p"  # of a simulated world; rows carry it even where all have the same
WITHHELD = "propensity.withhold"  # rows with and without it have learned from other logs
# settings that change what a run says or where, not what it measures
ASIDE = ("seeds", "resume", "progress", "figures", "compare_with", "paths", "logger", "hydra")


def gather(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Every finished run below the folders, a row for each seed.

    A finished run is a folder with ``results.csv`` and ``summary.json``; multirun parents and
    benchmark folders are searched to any depth, and a CSV file of results may be named itself.

    Returns:
        The columns of ``results.csv``, ``diagnostics`` (the definition in use; ``correct`` where a
        file has no such column), ``seconds_per_seed``, ``run`` (the folder), and for every
        setting that differs between runs of one dataset and estimator a column of its dotted key,
        such as ``dataset.p`` (that one always). Of two results for one seed and setting the newer
        stays.

    Raises:
        InputError: If a folder is missing, holds no finished run, or a file is damaged.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.exists():
            raise InputError(f"{folder} does not exist; name folders of finished runs.")
        before = len(found)
        found |= dict.fromkeys(_results_below(folder))
        if len(found) == before:
            raise InputError(
                f"No finished run in {folder}: looked for results.csv beside summary.json there "
                "and below; name run folders, a multirun or a benchmark folder."
            )
    files = sorted(found, key=lambda path: (path.stat().st_mtime, str(path)))
    runs = [(read_rows(path), _settings(path.parent), path) for path in files]
    _add_swept(runs)
    frame = pd.DataFrame([row for rows, _, _ in runs for row in rows])
    keys = [*GROUP, "estimator", *swept(frame), "seed"]
    return frame.drop_duplicates(keys, keep="last").reset_index(drop=True)


def swept(frame: pd.DataFrame) -> list[str]:
    """Columns that hold a setting: dotted keys, which no measured value has."""
    return [str(column) for column in frame.columns if "." in str(column)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """A dotted key's last parts, as few as tell the keys apart.

    >>> short_names(["dataset.p", "a.adam.lr", "b.adam.lr"])
    {'dataset.p': 'p', 'a.adam.lr': 'a.adam.lr', 'b.adam.lr': 'b.adam.lr'}
    """
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names[key] = next(e for e in ends if sum(f".{k}".endswith(f".{e}") for k in keys) == 1)
    return names


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of one ``results.csv``, checked.

    Raises:
        InputError: If it is damaged.
    """
    try:
        if regular(path) > BYTES:
            raise _damaged(path, f"it has more than {BYTES >> 20} MiB")
        with path.open(encoding="utf-8", newline="") as file:
            raw = list(csv.DictReader(file, strict=True))
    except (ArchiveError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    if not raw:
        raise _damaged(path, "it has no rows")
    missing = [name for name in (*FIXED, *LAST) if name not in raw[0]]
    if missing:
        raise _damaged(path, f"it lacks the columns {', '.join(missing)}")
    rows = []
    seeds = Counter(estimator for estimator, _ in {(row["estimator"], row["seed"]) for row in raw})
    for line, row in enumerate(raw, start=2):
        if None in row or None in row.values():
            raise _damaged(path, f"line {line} has another number of fields than the header")
        values: dict[str, Any] = {
            name: text if name in TEXT else _number(text, path, line, name)
            for name, text in row.items()
        }
        if seed_failed({k: v for k, v in values.items() if k != DIAGNOSTICS}) and len(raw) > 1:
            continue  # its replica diverged; the table's count of seeds is of the others
        values = {DIAGNOSTICS: DEFAULT_DIAGNOSTICS} | values
        values["seconds_per_seed"] = values["train_seconds"] / seeds[row["estimator"]]
        values["run"] = str(path.parent)
        rows += _by_definition(values)
    if not rows:
        raise _damaged(path, "every seed failed")
    return rows


def _by_definition(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each definition of the diagnostics; all but the first end their columns so."""
    ends = {name: end for name, end in DEFINITIONS.items() if end}
    others = {name + end for name in DIAGNOSED for end in ends.values()}
    plain = {name: value for name, value in row.items() if name not in others}
    rows = [
        {**plain, **{name: row[name + end] for name in DIAGNOSED}, DIAGNOSTICS: definition}
        for definition, end in ends.items()
        if all(name + end in row for name in DIAGNOSED)
    ]
    own = any(not math.isnan(row[name]) for name in DIAGNOSED if name in row)
    return [plain, *rows] if own or not rows else rows


def _results_below(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        if folder.suffix.lower() != ".csv":
            raise InputError(f"{folder} is no folder and no CSV file of results; name one.")
        yield folder.resolve()
        return
    for path in folder.rglob("results.csv"):
        if path.is_file() and (path.parent / "summary.json").is_file():  # written last
            yield path.resolve()


def _number(text: str, path: Path, line: int, name: str) -> float | int:
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise _damaged(path, f"line {line} has {name}={text[:60]!r}, not a number") from error
    whole = name in ("seed", "parameters", "best_epoch") and math.isfinite(value)
    return int(value) if whole else value


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not a readable results file: {why}; run it anew or leave it out.")


def _settings(folder: Path) -> dict[str, Any]:
    """Dotted keys of a run's configuration; references to other keys stay references.

    The second estimator of ``compare_with`` lies in its run's folder and shares its data.
    """
    own = _config(folder)
    if own:
        return own
    return {k: v for k, v in _config(folder.parent).items() if k.startswith("dataset.")}


def _config(folder: Path) -> dict[str, Any]:
    for name in CONFIGS:
        path = folder / name
        if not path.is_file():
            continue
        try:
            config = read_yaml(path)
        except (OSError, YamlError) as error:
            raise InputError(
                f"{path} is not readable YAML ({error}); leave that run out."
            ) from error
        if isinstance(config, dict):
            shown = {key: value for key, value in config.items() if key not in ASIDE}
            return {k: str(v) if isinstance(v, list) else v for k, v in dotted(shown)}
    return {}


def _add_swept(runs: Sequence[tuple[list[dict[str, Any]], dict[str, Any], Path]]) -> None:
    """Give every row the settings that differ between runs of its dataset and estimator.

    Of settings that change together, as a resolved reference does with its source, one stays.
    """
    seen: dict[tuple[str, str, str], set[str]] = {}
    for rows, settings, _ in runs:
        for key, value in settings.items():
            where = (rows[0]["dataset"], rows[0]["estimator"], key)
            seen.setdefault(where, set()).add(repr(value))
    differing = dict.fromkeys(
        k
        for (_, _, k), v in seen.items()
        if k == WORLD or (k == WITHHELD and v != {"0.0"}) or (len(v) > 1 and "." in k)
    )
    kept: list[list[Any]] = []
    for key in differing:
        column = [settings.get(key) for _, settings, _ in runs]
        copy = any(
            all(b is None or a == b for a, b in zip(one, column, strict=True)) for one in kept
        )
        if copy or key.endswith(".name"):
            continue
        kept.append(column)
        for rows, settings, _ in runs:
            for row in rows:
                row[key] = settings.get(key)
