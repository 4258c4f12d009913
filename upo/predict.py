"""``python -m upo.predict``: predictions, propensities and recommendations from a run folder."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from upo.core.arguments import Command, argument
from upo.core.console import command, quiet, say
from upo.errors import InputError
from upo.fitted import Fitted
from upo.fitted.run_folder import load_model
from upo.tables.files import read_blocks, table_writer
from upo.tables.frames import check_nulls


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    run: Path = argument(
        "a finished run of upo train, or a folder that Fitted.save wrote", value="RUN_DIR"
    )
    out: Path = argument("where to write; it is there when it is complete", value="FILE")
    pairs: Path | None = argument(
        "user and item in each row: P(positive) of each, in the order of the file",
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


def main(words: Sequence[str]) -> None:
    """Load, answer block by block, write.

    Raises:
        InputError: If an argument, the folder or a file is wrong.
    """
    given, _ = COMMAND.parse(words)
    _check(given)
    rows, unknown = 0, Unknown()
    with table_writer(given.out, "out") as writer:
        model = load_model(given.run, log=given.log, trusted=given.trusted)
        if given.propensity:
            model.need_propensity()
        answer = _recommendations if given.top_k else _predictions
        blocks = answer(model, given, unknown)
        with tqdm(unit=" rows", unit_scale=True, disable=not given.progress) as bar:
            for block in blocks:
                writer.write(block)
                bar.update(block.num_rows)
                rows += block.num_rows
    say(f"{given.out}: {rows:,} rows{unknown}")


@dataclass
class Unknown:
    """How many of the users and items asked for the log does not have.

    They are answered by means, which look like answers; a column that is spelled in another way
    than in training shows here.
    """

    users: int = 0
    items: int = 0
    asked: int = 0

    def count(self, model: Fitted, users: pa.ChunkedArray, items: pa.ChunkedArray | None) -> None:
        """Count the rows of a block."""
        self.asked += len(users)
        self.users += model.unknown(users, of_users=True)
        self.items += 0 if items is None else model.unknown(items, of_users=False)

    def __str__(self) -> str:
        parts = [
            f"{count / self.asked:.1%} of the {name}s"
            for name, count in (("user", self.users), ("item", self.items))
            if count
        ]
        return f" ({' and '.join(parts)} not in the log, answered by means)" if parts else ""


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


def _predictions(model: Fitted, given: Settings, unknown: Unknown) -> Iterator[pa.Table]:
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
        pairs = block.rename_columns(list(model.columns))
        unknown.count(model, block[names[0]], block[names[1]])
        for what in wanted:
            values = model.values(what, pairs)  # [R, N]
            if given.seeds == "average":
                block = block.append_column(what, pa.array(values.mean(0).numpy()))
                continue
            for seed, column in zip(model.seeds, values, strict=True):
                block = block.append_column(f"{what}_seed_{seed}", pa.array(column.numpy()))
        yield block


def _recommendations(model: Fitted, given: Settings, unknown: Unknown) -> Iterator[pa.Table]:
    """User, item, score and rank, for batches of users."""
    assert given.top_k is not None  # _check has looked
    names = given.user or model.columns[0], given.item or model.columns[1]
    before, size = 0, max(model.answers.users_at_once, 1024)
    for block in _users(model, given, names[0]):
        check_nulls(block, f"users={given.users}", before)
        before += block.num_rows
        unknown.count(model, block[names[0]], None)
        for first in range(0, max(block.num_rows, 1), size):
            users = block[names[0]].slice(first, size)
            best = model.recommend(users.to_pylist(), given.top_k, exclude_seen=given.exclude_seen)
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
