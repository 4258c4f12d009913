"""CSV files whose cells hold line ends read as the csv module reads them, at any block size."""

import csv
import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from upo.data.table import read_table
from upo.errors import InputError
from upo.tables import csv_blocks, files
from upo.tables.files import read_blocks, read_every_column, read_whole

COUNT = 300
PIECES = ["a", "b", "7", "\n", "\r\n", '"', ",", "ü", "漢", " ", "user,item\n", ""]
SIZES = [40, 53, 64, 97, 128, 211, 1000]  # bytes of a block


def table(draw):
    """Some rows of distinct pairs, with text that holds line ends, quotes and commas."""
    rows = int(draw.integers(2, 40))
    pairs = draw.permutation(rows * 2)[:rows]

    def cell(number):
        return f"x{number}" + "".join(draw.choice(PIECES, int(draw.integers(0, 6))))

    users, items = [cell(k) for k in range(rows)], [cell(k) for k in range(2)]
    return [
        {
            "user": users[pair // 2],
            "note": cell(0),
            "item": items[pair % 2],
            "rating": str(draw.integers(1, 6)),
        }
        for pair in pairs.tolist()
    ]


def text(rows, draw):
    out = io.StringIO()
    ends = str(draw.choice(["\n", "\r\n"]))
    names = draw.permutation(list(rows[0])).tolist()
    writer = csv.DictWriter(out, names, lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    content = out.getvalue()
    return content if draw.random() < 0.5 else content.removesuffix(ends)


def case(number, folder):
    """The rows of a case, and the file that holds them."""
    draw = np.random.default_rng([16, number])
    rows = table(draw)
    content = text(rows, draw).encode()
    packed = draw.random() < 0.2
    path = folder / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    return rows, path


def check(number, folder, monkeypatch):
    rows, path = case(number, folder)
    monkeypatch.setattr(csv_blocks, "BYTES", SIZES[number % len(SIZES)])
    expected = {name: [row[name] for row in rows] for name in ("user", "note", "item")}
    ratings = [float(row["rating"]) for row in rows]
    blocks = list(read_blocks(path, "t", ["user", "item"], ["rating"]))
    whole = read_whole(path, "t", ["user", "item"], ["rating"])
    every = read_every_column(path, "t", ["user", "item", "note"])
    for found in (pa.concat_tables(blocks), whole):
        assert found["user"].to_pylist() == expected["user"]
        assert found["item"].to_pylist() == expected["item"]
        assert found["rating"].to_pylist() == ratings
    for name, values in expected.items():
        assert every[name].to_pylist() == values
    try:
        data = read_table(path)
    except InputError as error:
        assert "no positive label" in str(error) or "no negative label" in str(error)  # noqa: PT017
        return
    users, items = data.user_ids.tolist(), data.item_ids.tolist()
    keys = {
        (users[key // len(items)], items[key % len(items)]): rating
        for key, rating in zip(data.train.keys.tolist(), data.train.ratings.tolist(), strict=True)
    }
    wanted = zip(expected["user"], expected["item"], ratings, strict=True)
    assert keys == {(user, item): rating for user, item, rating in wanted}


@pytest.mark.parametrize("number", range(0, COUNT, 10))
def test_line_ends_within_cells(number, tmp_path, monkeypatch):
    check(number, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("number", [k for k in range(COUNT) if k % 10])
def test_every_table_across_block_boundaries(number, tmp_path, monkeypatch):
    check(number, tmp_path, monkeypatch)


def test_a_boundary_at_every_byte(tmp_path, monkeypatch):
    """The block ends before, within and behind a quoted line end of each kind."""
    path = tmp_path / "t.csv"
    path.write_bytes('user,item,rating\n"a\r\nb","c\nü",1\n"d""\n",e,2\r\n'.encode())
    for size in range(20, 60):
        monkeypatch.setattr(csv_blocks, "BYTES", size)
        found = read_whole(path, "t", ["user", "item"], ["rating"]).to_pydict()
        assert found == {"user": ["a\r\nb", 'd"\n'], "item": ["c\nü", "e"], "rating": [1.0, 2.0]}


def test_a_row_longer_than_any_block_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_blocks, "BYTES", 64)
    monkeypatch.setattr(csv_blocks, "LONGEST", 1024)
    path = tmp_path / "t.csv"
    path.write_text("user,item\n" + "1,2\n" * 30 + "x" * 5000 + ",3\n")
    for read in (read_whole, read_every_column):
        with pytest.raises(InputError, match="a row is longer than"):
            read(path, "t", ["user", "item"])
    path.write_text("user,item\n" + "1,2\n" * 30 + "x" * 700 + ",3\n4,5\n")
    assert len(read_whole(path, "t", ["user", "item"])) == 32  # none twice, none lost


def test_categories_of_parquet_are_never_written_out(tmp_path):
    """A text of a megabyte in each of a million rows is held once."""
    rows = 2**20
    users = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 2**20])
    )
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"user": users, "item": np.arange(rows)}), path)
    found = read_whole(path, "t", ["user"], ["item"])
    assert len(found) == rows
    assert pa.types.is_dictionary(found["user"].type)
    assert found.nbytes < 2**28


def test_a_small_file_that_declares_a_large_table_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    rows = 2**25
    pa.parquet.write_table(
        pa.table({"user": pa.array(np.zeros(rows, np.int8))}), path, compression="zstd"
    )
    assert path.stat().st_size < rows / files.BLOWN_UP
    with pytest.raises(InputError, match="declares 33,554,432 rows"):
        read_whole(path, "t", ["user"])
