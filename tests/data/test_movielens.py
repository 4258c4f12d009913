import pytest
import torch

from upo.data.movielens import read_movielens
from upo.errors import InputError

FILM = "{id}|Les Enfants terribles (1950)|01-Jan-1950||http://x|" + "|".join("01" * 9 + "0")
FILES = {
    "u.data": "2\t3\t4\t880000000\n1\t1\t1\t870000000\n2\t1\t5\t875000000\n",
    "u.user": "1|20|F|artist|55105\n2|30|M|writer|V3N4P\n",
    "u.item": "".join(FILM.format(id=k).replace("Enfants", "Misérables") + "\n" for k in (1, 2, 3)),
}


def write(folder, **changes):
    for name, text in (FILES | {k.replace("_", "."): v for k, v in changes.items()}).items():
        if text is not None:
            (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def test_log_and_file_order(tmp_path):
    log = read_movielens(write(tmp_path))
    assert log.users.tolist() == [1, 0, 1]
    assert log.items.tolist() == [2, 0, 0]
    assert log.ratings.tolist() == [4, 1, 5]
    assert log.timestamps.tolist() == [880_000_000, 870_000_000, 875_000_000]
    rows = log.interactions
    assert (rows.n_users, rows.n_items) == (2, 3)
    assert rows.keys.tolist() == [0, 3, 5]
    assert rows.ratings.tolist() == [1, 5, 4]


def test_features(tmp_path):
    rows = read_movielens(write(tmp_path)).interactions
    # ages 20 and 30, less their mean, over their deviation; female; artist; writer
    assert rows.user_features.tolist() == [[-1, 1, 1, 0], [1, 0, 0, 1]]
    assert rows.item_features.shape == (3, 19)
    assert rows.item_features[2].sum() == 9


def test_features_are_optional(tmp_path):
    rows = read_movielens(write(tmp_path, u_user=None, u_item=None)).interactions
    assert rows.user_features is None
    assert rows.item_features is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"u_data": None}, "lacks u.data; get MovieLens 100K from"),
        ({"u_data": "1\t1\t5\n"}, "u.data, line 1: 4 columns expected, found 3"),
        (
            {"u_data": "0\t1\t5\t9\n1\t1\t5\t9\n", "u_user": None, "u_item": None},
            r"u.data \(ids less 1\): row 1 has user index -1",
        ),
        ({"u_data": "1\t1\t7\t9\n", "u_user": None, "u_item": None}, "has the rating 7"),
        ({"u_user": "1|20|F|artist|55105\n"}, "u.user has 1 lines, but u.data has ids up to 2"),
        ({"u_user": "1|20|F|artist\n"}, "u.user, line 1: 5 fields divided by '|' expected"),
        ({"u_user": "1|20|F|a|5\n3|30|M|b|V\n"}, "u.user, line 2: .* the first of them 2"),
        ({"u_user": "1|20|F|a|5\n2|old|M|b|V\n"}, "u.user, line 2: the age 'old' is not a number"),
        ({"u_item": FILES["u.item"].replace("|0\n", "|x\n")}, "genre flag 'x'"),
    ],
)
def test_damage_is_named(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence.replace("|", r"\|")):
        read_movielens(write(tmp_path, **changes))


def test_the_genuine_files(real_data):
    log = read_movielens(real_data("ml-100k", "u.data"))
    rows = log.interactions
    assert (rows.n_users, rows.n_items, len(rows)) == (943, 1682, 100_000)
    assert torch.bincount(rows.ratings.long()).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    per_user, per_item = torch.bincount(rows.users), torch.bincount(rows.items)
    assert (per_user.min(), per_user.max(), per_user.median()) == (20, 737, 65)
    assert (per_item.min(), per_item.max(), per_item.median()) == (1, 583, 27)
    assert rows.user_features.shape == (943, 1 + 1 + 21)
    assert rows.item_features.shape == (1682, 19)
    assert rows.item_features.sum(1).min() == 1
    assert (log.users[0], log.items[0], log.ratings[0]) == (195, 241, 3)  # the first line
