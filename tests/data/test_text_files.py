import pytest
import torch

from upo.data.text_files import read_columns, read_matrix, require
from upo.errors import InputError

COLUMNS = {"user": int, "item": int, "rating": float}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "rows.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_columns(write, end, last):
    path = write(end.join(["1,2,3", "4,5,0.30000000000000004"]) + (end if last else ""))
    rows = read_columns(path, COLUMNS)
    assert rows["user"].tolist() == [1, 4]
    assert rows["rating"].tolist() == [3.0, 0.30000000000000004]  # to the last digit
    assert [column.dtype for column in rows.values()] == [torch.int64, torch.int64, torch.float64]


def test_columns_by_header(write):
    path = write("time,rating,user,item\nx,1.5,7,8\ny,2.5,9,10\n")
    rows = read_columns(path, COLUMNS, header=True)
    assert [column.tolist() for column in rows.values()] == [[7, 9], [8, 10], [1.5, 2.5]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("1,2,3\n4,5\n", "line 2: 3 columns expected, found 2 in '4,5'"),
        ("1,2,3\n4,5,6\n7,8,9,10\n", "line 3: 3 columns expected, found 4"),
        ("1,2\n3,4\n", "line 1: 3 columns expected, found 2"),
        ("1,2,3\n\n4,x,6\n", "line 3: the item 'x' is not a whole number"),
        ("1,2,3\n4.5,5,6\n", "line 2: the user '4.5' is not a whole number"),
        ("1,2,3\n4,,6\n", "line 2: the item '' is not a whole number"),
        ("1,2,3\n99999999999999999999,5,6\n", "line 2: the user '9+' is not a whole number"),
        ("1,2,nan\n", "line 1: the rating 'nan' is not a number"),
        ("1,2,NA\n", "line 1: the rating 'NA' is not a number"),
        ("1,2,good\n", "line 1: the rating 'good' is not a number"),
        ("<html>\n<body>Not found</body>\n", "line 1: 3 columns expected, found 1 in '<html>'"),
        (b"\x1f\x8b\x08\x00\xff\xfe\n\xff", "line 1: 3 columns expected, found 1"),
        ("\n\n", "holds no rows"),
        ("1,2,3\n4,5," + "6" * 100 + "z\n", r"line 2: the rating '6{57}\.\.\.' is not a number"),
    ],
)
def test_damage_is_named_with_its_line(write, content, sentence):
    with pytest.raises(InputError, match=f"rows.txt(, )?.*{sentence}"):
        read_columns(write(content), COLUMNS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("user,item\n1,2\n", "line 1: no column rating among 'user,item'"),
        ("user,item,rating,time\n1,2,3,4\n1,2\n", "line 3: 4 columns expected, found 2"),
        ("user,item,rating,time\n1,2,a,4\n", "line 2: the rating 'a' is not a number"),
    ],
)
def test_damage_below_a_header(write, content, sentence):
    with pytest.raises(InputError, match=sentence):
        read_columns(write(content), COLUMNS, header=True)


def test_matrix(write):
    assert read_matrix(write("0 1 2\r\n3 4.5 6 \r\n")).tolist() == [[0, 1, 2], [3, 4.5, 6]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("0 1 2\n3 4\n", "line 2: 3 columns expected, found 2"),
        ("0 1 2\n3 4 5 6\n", "line 2: 3 columns expected, found 4"),
        ("0 1 2\n3 - 5\n", "line 2: the value '-' is not a number"),
    ],
)
def test_matrix_damage(write, content, sentence):
    with pytest.raises(InputError, match=sentence):
        read_matrix(write(content))


def test_require(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="lacks one and two; get them"):
        require(tmp_path, ["empty", "one", "two"], "get them")
    with pytest.raises(InputError, match=r"empty is empty \(0 bytes\).*; get them"):
        require(tmp_path, ["empty"], "get them")
