import gzip

import pandas as pd
import polars as pl
import pytest

from upo.data.frames import Columns, rating_data_from_frames
from upo.data.table import TableDataModule, read_table, write_id_maps
from upo.errors import InputError
from upo.tables.files import read_every_column

CSV = "user,item,rating\n7,b,5\n11,a,1\n7,a,2\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="train.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_ids_are_mapped_train_first(write):
    data = read_table(write(CSV), write("user,item,rating\n3,c,5\n11,b,1\n", "test.csv"))
    assert data.user_ids.tolist() == [7, 11, 3]  # as numbers: 7 < 11
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.train.keys.tolist() == [0, 1, 3]
    assert data.train.ratings.tolist() == [2, 5, 1]
    assert data.test.keys.tolist() == [4, 8]
    alone = read_table(write(CSV))
    assert alone.test is None
    assert alone.train.users.equal(data.train.users)


@pytest.mark.parametrize("name", ["t.tsv", "t.parquet", "t.csv.gz"])
def test_formats(tmp_path, write, name):
    frame = pd.read_csv(write(CSV))
    path = tmp_path / name
    if name == "t.parquet":
        frame.to_parquet(path)
    elif name == "t.tsv":
        frame.to_csv(path, sep="\t", index=False)
    else:
        path.write_bytes(gzip.compress(CSV.encode()))
    data = read_table(path)
    assert data.user_ids.tolist() == [7, 11]
    assert data.train.keys.tolist() == [0, 1, 2]


@pytest.mark.parametrize("library", [pd, pl])
@pytest.mark.parametrize("categories", [False, True])
def test_frames_of_any_library(library, categories):
    frame = library.DataFrame(
        {"who": ["x", "y", "x"], "what": [30, 10, 10], "stars": [5, 1, 2], "note": ["", "", ""]}
    )
    if categories and library is pl:
        frame = frame.with_columns(pl.col("who").cast(pl.Categorical))
    elif categories:
        frame = frame.astype({"who": "category"})
    data = rating_data_from_frames(frame, columns=Columns("who", "what", "stars"))
    assert data.user_ids.tolist() == ["x", "y"]
    assert data.item_ids.tolist() == [10, 30]
    assert data.train.keys.tolist() == [0, 1, 2]
    assert data.train.ratings.tolist() == [2, 5, 1]


@pytest.mark.parametrize(
    "ids",
    [
        pd.Categorical(["q", "p", "q"], categories=["unused", "q", "p"]),
        pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-02"]),
        pd.Series([2.0, 1.0, 2.0]),
        pd.Series([2, 1, 2], dtype="uint16"),
    ],
    ids=["categories", "dates", "whole floats", "unsigned"],
)
def test_ids_of_any_type(ids):
    frame = pd.DataFrame({"user": ids, "item": [1, 1, 2], "rating": [1, 5, 2]})
    data = rating_data_from_frames(frame)
    assert len(data.user_ids) == 2
    assert data.train.users.tolist() == [0, 1, 1] or data.train.users.tolist() == [0, 0, 1]
    by_id = {
        data.user_ids[u]: r
        for u, r in zip(data.train.users, data.train.ratings.tolist(), strict=True)
    }
    assert list(by_id.values())[-1] in (2.0, 5.0)


def test_text_ids_keep_their_zeros(write):
    data = read_table(write("user,item,rating\n007,1,5\n7,1,1\n"))
    assert data.user_ids.tolist() == ["007", "7"]
    assert data.item_ids.tolist() == [1]


def test_numbers_in_one_file_and_text_in_the_other(write):
    data = read_table(write(CSV), write("user,item,rating\nu3,a,5\n7,b,1\n", "test.csv"))
    assert data.user_ids.tolist() == ["11", "7", "u3"]
    assert data.test.users.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"user;item;rating\n1;2;3\n", r"separated by semicolons, not by commas; .*sep=';'"),
        (b"user;item;rating\n1;2;3,5\n", r"separated by semicolons"),
        (b"user\titem\trating\n1\t2\t3\n", "separated by tabs, not by commas; rename it to .tsv"),
        (b"user|item|rating\n1|2|3\n", r"separated by bars.*sep='\|'"),
        (b'user,item,rating\n1,2,"3,5"\n', r"decimal point \(pandas: read_csv\(decimal=','\)\)"),
        ("user,item,rating\né,2,3\n".encode("latin-1"), "not UTF-8.*encoding='cp1252'"),
        ("user,item,rating\n1,2,3\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
    ],
    ids=["semicolons", "decimal commas too", "tabs", "bars", "decimals", "latin-1", "utf-16"],
)
def test_other_separators_and_encodings_are_recognised(tmp_path, text, sentence):
    path = tmp_path / "log.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=sentence):
        read_table(path)
    if "decimal point" not in sentence:  # where every column is read as it is
        with pytest.raises(InputError, match=sentence):
            read_every_column(path, "pairs", ["user", "item"])
    (tmp_path / "log.tsv").write_bytes(b"user,item,rating\n1,2,3\n")
    with pytest.raises(InputError, match=r"separated by commas, not by tabs; rename it to .csv"):
        read_table(tmp_path / "log.tsv")


def test_repeated_pairs(write):
    path = write(CSV + "7,b,2\n")
    with pytest.raises(InputError, match="user 7 and item 'b' occurs more than once"):
        read_table(path)
    assert read_table(path, duplicates="mean").train.ratings.tolist() == [2, 3.5, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "user,item\n1,2\n",
            "has no column rating, only user, item; rename .*dataset.rating_column",
        ),
        ("user,item,rating\n1,2,3\n1,2\n", "Row #3: Expected 3 columns, got 2"),
        ("user,item,rating\n1,2,good\n", "Row #2: .*'good'"),
        ("user,item,rating\n1,2,3\n1,3,\n", "row 2 has no rating; fill it in"),
        ("user,item,rating\n1,2,3\n1,3,nan\n", "row 2 has no rating"),
        ("user,item,rating\n1,2,3\n,3,1\n", "row 2 has no user"),
        ("user,item,rating\n1,2,3\n1,3,inf\n", "row 2 has the rating inf"),
        ("user,item,rating\n", "has no rows"),
        ("", "cannot be read"),
        ("user,item,rating\n1,2,3\n1,3,4\n", "table, train: no negative label"),
    ],
)
def test_damage_is_named(write, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_table(write(text))


def test_files_that_are_not_there_or_not_known(write, tmp_path):
    with pytest.raises(InputError, match=r"dataset.train=nowhere.csv is not a file"):
        read_table("nowhere.csv")
    with pytest.raises(
        InputError, match=r"dataset.test=.*x.xlsx ends in .xlsx, which is not known"
    ):
        read_table(write(CSV), write("", "x.xlsx"))
    with pytest.raises(InputError, match=r"x.parquet cannot be read"):
        read_table(write(CSV, "x.parquet"))


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ([1, 2], "train must be a data frame .*, got list"),
        (pd.DataFrame({"user": [1]}), "train has no column item or rating, only user"),
        (pd.DataFrame({"user": [1, "a"], "item": 1, "rating": 1}), "mixes types"),
        (pd.DataFrame({"user": [1, None], "item": 1, "rating": 1}), "row 2 has no user"),
        (pd.DataFrame({"user": [1, 2], "item": 1, "rating": ["x", "y"]}), "must hold numbers"),
    ],
)
def test_frames_that_will_not_do(frame, sentence):
    with pytest.raises(InputError, match=sentence):
        rating_data_from_frames(frame)


def test_features(write):
    users = write("user,age,vip\n11,40,1\n7,20,0\n99,1,1\n", "users.csv")
    items = write("item,x\na,0.5\nb,1.5\n", "items.csv")
    train = read_table(write(CSV), user_features=users, item_features=items).train
    assert train.user_features.tolist() == [[20, 0], [40, 1]]
    assert train.item_features.tolist() == [[0.5], [1.5]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("user,age\n7,1\n", "the features by user have no row for user 11 .1 lack one"),
        ("user,age\n7,1\n11,1\n7,2\n", "more than one row for user 7"),
        ("user,age\n7,1\n11,old\n", "the column age must hold numbers"),
        ("user,age\n7,1\n11,\n", "row 2 has no age"),
        ("id,age\n7,1\n", "must have a column user and at least one column of numbers"),
    ],
)
def test_features_that_will_not_do(write, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_table(write(CSV), user_features=write(text, "users.csv"))


def test_id_maps(write, tmp_path):
    write_id_maps(read_table(write(CSV)), tmp_path / "maps")
    assert (tmp_path / "maps" / "users.csv").read_text() == "index,id\n0,7\n1,11\n"
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["items.csv", "users.csv"]
    with pytest.raises(InputError, match=r"train.csv.users.csv cannot be written"):
        write_id_maps(read_table(write(CSV)), tmp_path / "train.csv")


def test_datamodule(write):
    module = TableDataModule(str(write(CSV)), rating_range=[1, 5], name="mine")
    assert module.read().name == "mine"
    with pytest.raises(InputError, match=r"must lie in 1\.\.4"):
        TableDataModule(str(write(CSV)), rating_range=[1, 4]).read()
    with pytest.raises(InputError, match=r"rating_range must be null or \[low, high\]"):
        TableDataModule(str(write(CSV)), rating_range=[5, 1])
