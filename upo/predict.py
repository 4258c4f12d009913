"""``python -m upo.predict``: predictions, propensities and recommendations from a run folder."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from upo.core.arguments import Command, argument
from upo.core.console import command, quiet, say
from upo.errors import InputError, UnseenIdsWarning
from upo.fitted import Fitted
from upo.fitted.run_folder import load_model
from upo.fitted.unseen import Unseen
from upo.tables.files import read_blocks
from upo.tables.frames import check_nulls
from upo.tables.writer import table_writer


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    run: Path = argument(
        "a finished run of upo train, or a folder that Fitted.save wrote", value="RUN_DIR"
    )
    out: Path = argument("where to write; it is there when it is complete", value="FILE")
    pairs: Path | None = argument(
        "user and item in each row: P(positive) (or the rating) of each, in the order of the file",
        default=None,
        value="FILE",
        must="file",
    )
    top_k: int | None = argument(
        "instead: the N best items of each user, best first", default=None, value="N"
    )
    users: Path | None = argument(
        "with top_k: of these users; all users of the log if not given",
        default=None,
        value="FILE",
        must="file",
    )
    propensity: bool = argument(
        "with pairs: P(observed) as learned, too", default=False, value="true"
    )
    seeds: str = argument(
        "with pairs: the mean over seeds, or a column for each",
        default="average",
        value="WHICH",
        choices=("average", "separate"),
    )
    exclude_seen: bool = argument(
        "with top_k: leave out items that the user has in the log", default=True, value="false"
    )
    user: str | None = argument("name of the user column, if other than in training", default=None)
    item: str | None = argument("name of the item column, if other than in training", default=None)
    log: Path | None = argument(
        "where the log of dataset=table is now, if it was moved", default=None, value="FILE"
    )
    trusted: bool = argument(
        "also build networks that are not of upo: runs the code that the folder names",
        default=False,
        value="true",
    )
    progress: bool = argument("draw a progress bar", default=True, value="false")


COMMAND = Command(
    "predict",
    "Predictions, propensities and recommendations from a run folder",
    Settings,
    (
        "run=RUN_DIR pairs=FILE out=FILE [key=value ...]",
        "run=RUN_DIR top_k=10 users=FILE out=FILE [key=value ...]",
    ),
    notes=("Files are CSV (.csv .tsv .txt, also .gz) or Parquet (.parquet .pq).",),
)


class Asked:
    """What was asked for so far, and how much of it is unseen."""

    def __init__(self) -> None:
        self.unseen = Unseen(0, 0, 0, 0)

    def add(self, block: Unseen) -> None:
        """A block more."""
        self.unseen = self.unseen.plus(block)


def main(words: Sequence[str]) -> None:
    """Load, answer block by block, write.

    Raises:
        InputError: If an argument, the folder or a file is wrong.
    """
    given, _ = COMMAND.parse(words)
    _check(given)
    rows = 0
    asked = Asked()
    with table_writer(given.out, "out") as writer:
        model = load_model(given.run, log=given.log, trusted=given.trusted)
        if given.propensity:
            model.need_propensity()
        blocks = (
            _recommendations(model, given, asked)
            if given.top_k
            else _predictions(model, given, asked)
        )
        with tqdm(unit=" rows", unit_scale=True, disable=not given.progress) as bar:
            for block in blocks:
                writer.write(block)
                bar.update(block.num_rows)
                rows += block.num_rows
    say(f"{given.out}: {rows:,} rows")
    if asked.unseen.either:
        say(f"Warning: {asked.unseen.sentence('users' if given.top_k else 'pairs')}")


def _check(given: Settings) -> None:
    if (given.pairs is None) == (given.top_k is None):
        raise InputError("Give either pairs=FILE or top_k=N; --help shows both.")
    if given.top_k is not None and given.top_k < 1:
        raise InputError(f"top_k must be at least 1, got {given.top_k}; try 10.")
    if given.top_k is None and given.users is not None:
        raise InputError("users= belongs to top_k=N; give that, or leave users out.")
    if given.top_k is not None and (given.propensity or given.seeds == "separate"):
        raise InputError(
            "propensity=true and seeds=separate belong to pairs=FILE; recommendations rank by the "
            "mean prediction."
        )


def _predictions(model: Fitted, given: Settings, asked: Asked) -> Iterator[pa.Table]:
    """User, item and what was asked for, for blocks of pairs."""
    assert given.pairs is not None  # _check has looked
    names = [given.user or model.columns[0], given.item or model.columns[1]]
    if names[0] == names[1]:
        raise InputError(f"user= and item= both name the column {names[0]!r}; name one for each.")
    wanted = ["prediction", *(["propensity"] if given.propensity else [])]
    before = 0
    for block in read_blocks(given.pairs, "pairs", names, []):
        block = block.select(names)
        check_nulls(block, f"pairs={given.pairs}", before)
        before += block.num_rows
        places = model.places(block.rename_columns(list(model.columns)))
        asked.add(Unseen.of(*places))
        for what in wanted:
            values = model.answers.values(what, *places)  # [R, N]
            if given.seeds == "average":
                block = block.append_column(what, pa.array(values.mean(0).numpy()))
                continue
            for seed, column in zip(model.seeds, values, strict=True):
                block = block.append_column(f"{what}_seed_{seed}", pa.array(column.numpy()))
        yield block


def _recommendations(model: Fitted, given: Settings, asked: Asked) -> Iterator[pa.Table]:
    """User, item, score and rank, for batches of users."""
    assert given.top_k is not None  # _check has looked
    names = given.user or model.columns[0], given.item or model.columns[1]
    before, size = 0, max(model.answers.users_at_once, 1024)
    for block in _users(model, given, names[0]):
        check_nulls(block, f"users={given.users}", before)
        before += block.num_rows
        for first in range(0, max(block.num_rows, 1), size):
            users = block[names[0]].slice(first, size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnseenIdsWarning)  # said once, of all of them
                best = model.recommend(
                    users.to_pylist(), given.top_k, exclude_seen=given.exclude_seen
                )
            new = round(best.attrs["unseen"] * len(users))
            asked.add(Unseen(len(users), new, 0, new))
            best.columns = pd.Index([*names, "score", "rank"])
            schema = pa.schema(
                [
                    (names[0], users.type),
                    (names[1], pa.array(model.item_ids[:1]).type),
                    ("score", pa.float64()),
                    ("rank", pa.int64()),
                ]
            )
            yield pa.Table.from_pandas(best, schema=schema, preserve_index=False)


def _users(model: Fitted, given: Settings, name: str) -> Iterator[pa.Table]:
    if given.users is None:
        yield pa.table({name: pa.array(model.user_ids[model.answers.users.numpy()])})
    else:
        for block in read_blocks(given.users, "users", [name], []):
            yield block.select([name])


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
