"""Tables of several files are one table: folders, patterns, partitions, of Parquet and CSV."""

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch

from upo.data.frames import Columns
from upo.data.table import TableDataModule, read_table
from upo.errors import InputError
from upo.tables import parts as several
from upo.tables.files import read_every_column, read_whole
from upo.tables.parts import parts

LOG = pd.DataFrame(
    {
        "user": [f"u{k % 9}" for k in range(60)],
        "item": [k % 7 + 10 for k in range(60)],
        "rating": [float(k % 5 + 1) for k in range(60)],
        "day": [f"2024-01-{k % 28 + 1:02}" for k in range(60)],
    }
).drop_duplicates(["user", "item"])


def same(one, other):
    assert one.user_ids.tolist() == other.user_ids.tolist()
    assert one.item_ids.tolist() == other.item_ids.tolist()
    assert torch.equal(one.train.keys, other.train.keys)
    assert torch.equal(one.train.ratings, other.train.ratings)
    assert (one.train.times is None) == (other.train.times is None)
    if one.train.times is not None:
        assert torch.equal(one.train.times, other.train.times)


def partitioned(folder, *columns):
    pa.parquet.write_to_dataset(pa.Table.from_pandas(LOG), folder, partition_cols=[*columns])
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").touch()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "log.csv"
    LOG.to_csv(path, index=False)
    return read_table(path, columns=Columns(time="day"))


@pytest.mark.parametrize("column", ["day", "user", "item", "rating"])
def test_hive_partitions_are_columns(column, tmp_path, whole):
    folder = partitioned(tmp_path / "log", column)
    assert len(parts(folder, "t")) == LOG[column].nunique()
    same(read_table(folder, columns=Columns(time="day")), whole)
    same(read_table(f"{folder}/*=*", columns=Columns(time="day")), whole)
    same(read_table(f"{folder}/**/*.parquet", columns=Columns(time="day")), whole)


def test_two_levels_of_folders_and_types_that_differ_from_file_to_file(tmp_path, whole):
    same(read_table(partitioned(tmp_path / "a", "day", "item"), columns=Columns(time="day")), whole)
    folder = tmp_path / "b"
    folder.mkdir()
    low, high = LOG[:20], LOG[20:]
    low.astype({"item": "int32"}).to_parquet(folder / "0.parquet")
    high.astype({"item": str}).to_csv(folder / "1.csv.gz", index=False)
    same(read_table(folder, columns=Columns(time="day")), whole)
    same(read_table(folder / "[01].*", columns=Columns(time="day")), whole)


def test_names_of_folders_are_unquoted_and_an_empty_cell_is_one(tmp_path):
    for name, users in (("item=a%2Fb%20c", "x"), (f"item={several.EMPTY}", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.csv").write_text(f"user,item,rating\n{users},other,1\n")
    found = read_whole(tmp_path, "t", ["user", "item"], ["rating"])
    assert found["item"].to_pylist() == [None, "a/b c"]
    assert found["user"].to_pylist() == ["y", "x"]
    every = read_every_column(tmp_path, "t", ["user", "item"])
    assert every["item"].to_pylist() == [None, "a/b c"]
    with pytest.raises(InputError, match="row 1 has no item"):
        read_table(tmp_path)


def test_a_file_with_signs_of_a_pattern_in_its_name_is_a_file(tmp_path, whole):
    LOG.to_csv(tmp_path / "log[1]*.csv", index=False)
    same(read_table(tmp_path / "log[1]*.csv", columns=Columns(time="day")), whole)


def test_features_may_lie_in_several_files(tmp_path):
    LOG.to_csv(tmp_path / "log.csv", index=False)
    users = pd.DataFrame({"user": [f"u{k}" for k in range(9)], "age": range(9)})
    (tmp_path / "users").mkdir()
    users[:4].to_csv(tmp_path / "users" / "0.csv", index=False)
    users[4:].to_csv(tmp_path / "users" / "1.csv", index=False)
    users.to_csv(tmp_path / "users.csv", index=False)
    one, other = (
        read_table(tmp_path / "log.csv", user_features=tmp_path / name).train.user_features
        for name in ("users", "users.csv")
    )
    assert torch.equal(one, other)


def empty(folder):
    folder.mkdir()
    return folder, "has no files"


def foreign(folder):
    folder.mkdir()
    LOG.to_csv(folder / "a.csv", index=False)
    (folder / "b.json").write_text("{}")
    return folder, r"b.json ends in .json, which is not known"


def without_column(folder):
    folder.mkdir()
    LOG.to_csv(folder / "a.csv", index=False)
    LOG.drop(columns="item").to_csv(folder / "b.csv", index=False)
    return folder, r"b.csv has no column item"


def no_number(folder):
    (folder / "rating=good").mkdir(parents=True)
    LOG.drop(columns="rating").to_csv(folder / "rating=good" / "a.csv", index=False)
    return folder, "lies in a folder rating=good, and the column rating must hold numbers"


def damaged(folder):
    partitioned(folder, "day")
    path = sorted(folder.rglob("*.parquet"))[3]
    path.write_bytes(path.read_bytes()[:-9])
    return folder, rf"{path.name} cannot be read"


def no_match(folder):
    return folder / "*.csv", "has no files"


def too_many(folder):
    return empty(folder)[0] / "..", "has more than 1 files and folders"


@pytest.mark.parametrize(
    "make", [empty, foreign, without_column, no_number, damaged, no_match, too_many]
)
def test_what_is_no_table_ends_in_a_sentence(make, tmp_path, monkeypatch):
    if make is too_many:
        monkeypatch.setattr(several, "MOST", 1)
        (tmp_path / "other").mkdir()
    path, said = make(tmp_path / "log")
    with pytest.raises(InputError, match=said) as error:
        read_table(path)
    assert "; " in str(error.value)


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "elsewhere").mkdir()
    LOG.to_csv(tmp_path / "log" / "a.csv", index=False)
    LOG.to_csv(tmp_path / "elsewhere" / "b.csv", index=False)
    (tmp_path / "log" / "link").symlink_to(tmp_path / "elsewhere")
    assert [part.path.name for part in parts(tmp_path / "log", "t")] == ["a.csv"]


KINDS = {
    "text": pa.string(),
    "days": pa.date32(),
    "times": pa.timestamp("us"),
    "zoned": pa.timestamp("ns", "UTC"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", [".parquet", ".csv"])
def test_the_latest_rows_are_the_test_set(kind, ends, tmp_path, whole):
    path = tmp_path / f"log{ends}"
    table = pa.Table.from_pandas(LOG, preserve_index=False)
    days = table["day"]
    if kind != "text":
        days = days.cast(pa.timestamp("us")).cast(KINDS[kind])
    table = table.set_column(table.column_names.index("day"), "day", days)
    if ends == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        pa.parquet.write_table(table, path)
    data = TableDataModule(str(path), time="day", test_after="2024-01-20").data
    later = LOG["day"] >= "2024-01-20"
    assert (len(data.train), len(data.test)) == (int((~later).sum()), int(later.sum()))
    rows = {
        (data.user_ids[k // 7], data.item_ids[k % 7]): r
        for k, r in zip(data.test.keys.tolist(), data.test.ratings.tolist(), strict=True)
    }
    assert rows == LOG[later].set_index(["user", "item"])["rating"].to_dict()
    assert data.train.times.max() < whole.train.times.max()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"test_after": "2024-01-20"}, "needs the log's times"),
        ({"test_after": "2030-01-01", "time": "day"}, "all .* rows of the log are before it"),
        ({"test_after": 7, "time": "day"}, "all .* rows of the log are at or after it"),
        ({"test_after": "soon", "time": "day"}, "'soon', which is no time"),
        ({"test_after": "", "time": "day"}, "must be a number or a date"),
        ({"test_after": "2024-01-20", "time": "day", "test": "log.csv"}, "leave dataset.test or"),
    ],
)
def test_a_split_by_time_that_cannot_be_is_said(settings, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LOG.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(InputError, match=said):
        TableDataModule("log.csv", **settings).data  # noqa: B018


def test_fit_takes_the_later_rows_as_test_set_and_an_arrow_dataset_as_log(tmp_path):
    folder = partitioned(tmp_path / "log", "day")
    import upo

    few = {"estimator.stages.debias.epochs": 1, "trainer.accelerator": "cpu"}
    words = {"estimator": "naive", "time": "day", "test_after": "2024-01-20", "progress": False}
    log = pa.dataset.dataset(folder, partitioning="hive")
    with pytest.warns(upo.UselessModelWarning):
        models = [upo.fit(frame, overrides=few, **words) for frame in (LOG, log)]
    aucs = [model.metrics["auc"][0] for model in models]
    assert aucs[0] == aucs[1]
    assert 0 <= aucs[0] <= 1
