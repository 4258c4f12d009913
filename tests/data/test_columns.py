import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from upo.data.table import read_table
from upo.errors import InputError
from upo.tables import csv_blocks, files
from upo.tables.columns import collect
from upo.tables.files import read_blocks

NAMES = ("user", "item", "rating")


def block(users, items, ratings):
    return pa.RecordBatch.from_arrays([pa.array(users), pa.array(items), pa.array(ratings)], NAMES)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(files, "ROWS", 100)
    monkeypatch.setattr(csv_blocks, "BYTES", 1000)


def log(rows, seed=0):
    g = np.random.default_rng(seed)
    keys = g.permutation(rows * 3)[:rows]  # 50 items, each pair once, in no order
    return pa.table(
        {"user": keys // 50 * 7, "item": keys % 50, "rating": g.integers(1, 11, rows) / 2}
    )


@pytest.mark.parametrize("text", [False, True])
def test_files_read_in_blocks_equal_a_whole_read(tmp_path, request, text):
    table = log(1000)
    if text:
        ids = pa.compute.binary_join_element_wise("u", table["user"].cast(pa.string()), "")
        table = table.set_column(0, "user", ids)
    paths = tmp_path / "t.parquet", tmp_path / "t.csv"
    pa.parquet.write_table(table, paths[0], row_group_size=1000)
    pa.csv.write_csv(table, paths[1])
    whole = read_table(paths[0])
    expected = sorted(set(table["user"].to_pylist()))
    assert whole.user_ids.tolist() == expected
    request.getfixturevalue("small_blocks")
    count = [len(list(read_blocks(path, "t", NAMES[:2], NAMES[2:]))) for path in paths]
    assert min(count) >= 10
    for path in paths:
        data = read_table(path)
        assert data.user_ids.tolist() == whole.user_ids.tolist()
        assert data.item_ids.tolist() == whole.item_ids.tolist()
        assert data.train.keys.equal(whole.train.keys)
        assert data.train.ratings.equal(whole.train.ratings)


@pytest.mark.parametrize(
    ("ratings", "dtype"),
    [
        ([[1, 2], [3, 4]], torch.float32),
        ([[0.5, 2.5]], torch.float32),
        ([[1.0], [0.1]], torch.float64),  # one that float32 would round keeps all
        ([[2**24 + 1]], torch.float64),
        ([[1e300]], torch.float64),
        ([["4.5", "1e-1"]], torch.float64),
    ],
)
def test_ratings_are_exact(ratings, dtype):
    rows = [block([1] * len(part), range(len(part)), part) for part in ratings]
    read = collect(rows, NAMES, "here").ratings
    assert read.dtype == dtype
    assert read.tolist() == [float(x) for part in ratings for x in part]


def test_an_empty_cell_is_named_by_its_row_over_all_blocks():
    good = block([1, 2], [3, 4], [1.0, 2.0])
    late = block([1, None], [3, None], [None, 2.0])
    with pytest.raises(InputError, match=r"here: row 4 has no user; .* \(2 such rows in all\)"):
        collect([good, late, late], NAMES, "here")
    with pytest.raises(InputError, match=r"row 3 has no rating; .* \(1 such rows in all\)"):
        collect([good, block([1, 1], [1, 2], [None, 2.0])], NAMES, "")
    with pytest.raises(InputError, match="row 2 has no item"):
        collect([block(["a", "b"], ["c", ""], [1.0, 2.0])], NAMES, "here")
    with pytest.raises(InputError, match="row 1 has no rating"):
        collect([block([1], [1], [float("nan")])], NAMES, "here")


@pytest.mark.parametrize(
    ("users", "ratings", "sentence"),
    [
        (["a"], ["good"], "here: the column rating must hold numbers"),
        ([[1]], [1.0], "here: the column user holds list.*, which cannot be an id"),
    ],
)
def test_columns_that_will_not_do(users, ratings, sentence):
    with pytest.raises(InputError, match=sentence):
        collect([block(users, [1], ratings)], NAMES, "here")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1,2", "Row #1002: Expected 3 columns, got 2"),
        ("1,2,good", "Row #1002: .*'good'"),
        ("1,,3", "row 1001 has no item"),
        ("1,2,inf", "row 1001 has the rating inf"),
        ("5,5,1", "user 5 and item 5 occurs more than once"),
    ],
)
def test_damage_far_down_a_csv_file_is_named(tmp_path, small_blocks, line, sentence):
    path = tmp_path / "t.csv"
    rows = "".join(f"{k},{k},{k % 5}\n" for k in range(1000))
    path.write_text(f"user,item,rating\n{rows}{line}\n")
    with pytest.raises(InputError, match=sentence):
        read_table(path)


MEASURE = """
import resource, sys
from upo.data.table import read_table
read_table(sys.argv[1])  # what the libraries take at their first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train = read_table(sys.argv[2]).train
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(train))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_memory_is_a_small_multiple_of_the_result(tmp_path, name):
    """The peak while reading, beside the 12 bytes a row that are kept."""
    rows = 12_000_000
    g = np.random.default_rng(0)
    keys = np.arange(rows) * 11 % (rows * 3)  # all different, in no order; 3,000 items
    g.shuffle(keys)
    users = pa.array(keys // 3000)
    table = pa.table({"user": users, "item": keys % 3000, "rating": g.integers(1, 6, rows)})
    for path, part in ((tmp_path / f"small{name}", table[:1000]), (tmp_path / name, table)):
        if name == "t.csv":
            pa.csv.write_csv(part, path)
        else:
            pa.parquet.write_table(part, path, row_group_size=rows)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / f"small{name}"), str(tmp_path / name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, read = map(int, done.stdout.split())
    assert read == rows
    # numbers and ratings (12), keys and ratings sorted (12), and blocks of a fixed size beside them
    assert grown * 1024 < 12 * rows * 4
