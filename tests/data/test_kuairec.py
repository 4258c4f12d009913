import math

import pytest
import torch

from upo.data.interactions import LabelRule
from upo.data.kuairec import KuaiRecDataModule, read_kuairec
from upo.errors import InputError

HEADER = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"


def write_derived(folder, train="40,7,2.5\n40,9,0\n14,7,1e-3\n", test="90,8,3.5\n14,7,0.5\n"):
    for name, text in (("user.txt", train), ("random.txt", test)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def official(rows):
    return HEADER + "".join(f"{u},{i},1,2,2020-07-05 00:08:23.4,,,{r}\n" for u, i, r in rows)


def write_official(folder, big, small):
    (folder / "big_matrix.csv").write_text(official(big))
    (folder / "small_matrix.csv").write_text(official(small))
    return folder


def test_ids_are_indexed_over_both_files(tmp_path):
    data = read_kuairec(write_derived(tmp_path))
    assert data.user_ids.tolist() == [14, 40, 90]
    assert data.item_ids.tolist() == [7, 8, 9]
    assert (data.train.n_users, data.train.n_items) == (3, 3)
    assert data.train.keys.tolist() == [0, 3, 5]
    assert data.train.ratings.tolist() == [1e-3, 2.5, 0]
    assert data.test.keys.tolist() == [0, 7]


def test_the_default_label_is_above_two_unrounded(tmp_path):
    above = math.nextafter(2.0, 3.0)
    data = read_kuairec(write_derived(tmp_path, train=f"0,0,2\n0,1,{above!r}\n"))
    assert data.train.labels(data.label_rule).tolist() == [0, 1]


def test_official_logs(tmp_path):
    small = [(u, i, (u * 7 + i // 10) % 4) for u in (3, 5) for i in (10, 20, 30)]
    big = [(1, 10, 4.0), (1, 10, 1.0), (3, 99, 0.5), (5, 20, 9.0), (1, 10, 1.0)]
    folder, rule = write_official(tmp_path, big, small), LabelRule(0.7)
    data = read_kuairec(folder, rule, test_per_user=None)
    assert data.user_ids.tolist() == [1, 3, 5]
    assert data.item_ids.tolist() == [10, 20, 30, 99]
    assert data.train.keys.tolist() == [0, 7]  # (5, 20) is of the small matrix
    assert data.train.ratings.tolist() == [2.0, 0.5]  # the mean of three rows
    assert data.test.keys.tolist() == [4, 5, 6, 8, 9, 10]
    last = read_kuairec(folder, rule, duplicates="last", test_per_user=None)
    assert last.train.ratings.tolist() == [1.0, 0.5]


def test_official_test_rows_are_drawn_by_user(tmp_path):
    small = [(u, i, (u + i) % 4) for u in range(30) for i in range(50)]
    folder = write_official(tmp_path, [(0, 99, 5), (1, 99, 0)], small)
    test = read_kuairec(folder, test_per_user=8).test
    assert torch.bincount(test.users).tolist() == [8] * 30
    write_official(tmp_path, [(0, 99, 5), (1, 99, 0)], small[::-1])  # the order is of no account
    assert torch.equal(read_kuairec(folder, test_per_user=8).test.keys, test.keys)
    # 240 draws over 50 items: each about 4.8 times, 14 would be four deviations off
    assert torch.bincount(test.items, minlength=50)[:50].max() < 14


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": None}, r"lacks user.txt; put user.txt and random.txt there, or the official"),
        ({"train": None, "test": None}, "lacks big_matrix.csv and small_matrix.csv; put user.txt"),
        ({"train": ""}, "user.txt is empty"),
        ({"test": "1,2,3\n1,2\n"}, "random.txt, line 2: 3 columns expected"),
        (
            {"test": "1,2,3\n1,3,-0.5\n"},
            "random.txt, line 2: the watch_ratio -0.5 must be at least",
        ),
        ({"test": "1,2,3\n1,3,inf\n"}, "random.txt, line 2: the watch_ratio 'inf' is not a number"),
        ({"train": "1.5,2,3\n"}, "user.txt, line 1: the user '1.5' is not a whole number"),
        ({"train": "0,0,1\n0,1,2\n"}, "kuairec, train: no positive label .* 'rating > 2'"),
    ],
)
def test_damage_is_named(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        read_kuairec(write_derived(tmp_path, **changes))


def test_official_damage_is_named(tmp_path):
    write_official(tmp_path, [(0, 0, 3)], [(0, 0, 3), (0, 1, -1)])
    with pytest.raises(InputError, match=r"small_matrix.csv, line 3: the watch_ratio -1"):
        read_kuairec(tmp_path)
    (tmp_path / "small_matrix.csv").write_text("user_id,video_id\n0,0\n")
    with pytest.raises(InputError, match=r"small_matrix.csv, line 1: no column watch_ratio"):
        read_kuairec(tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"test_per_user": 0}, "dataset.test_per_user must be at least 1 or null, got 0"),
        ({"duplicates": "max"}, "dataset.duplicates must be one of"),
        ({"duplicates": "error"}, "user 1 and item 10 occurs more than once"),
    ],
)
def test_settings_out_of_range(tmp_path, kwargs, sentence):
    write_official(tmp_path, [(1, 10, 3), (1, 10, 3), (1, 11, 0)], [(0, 0, 3), (0, 1, 1)])
    with pytest.raises(InputError, match=sentence):
        read_kuairec(tmp_path, **kwargs)


def test_datamodule(tmp_path):
    module = KuaiRecDataModule(
        str(write_derived(tmp_path)), label_threshold=2.5, label_strict=False
    )
    assert str(module.read().label_rule) == "rating >= 2.5"


def test_the_genuine_test_file(real_data, tmp_path):
    source = real_data("kuairec", "random.txt")
    (tmp_path / "random.txt").symlink_to(source / "random.txt")
    users = "".join(f"{u},{i},{(u + i) % 5}\n" for u in range(0, 7163, 50) for i in (1, 133, 10595))
    (tmp_path / "user.txt").write_text(users)  # made up: the genuine one is not available
    data = read_kuairec(tmp_path)
    test = data.test
    assert len(test) == 117_113
    assert torch.bincount(test.users).unique().tolist() == [0, 83]
    tested = data.user_ids[test.users.unique().numpy()]
    assert (len(tested), tested.min(), tested.max()) == (1411, 14, 7162)
    assert len(test.items.unique()) == 2519
    assert test.labels(data.label_rule).sum() == 5_799
    assert test.labels(LabelRule(2.0)).sum() == 5_801
    assert test.labels(LabelRule(1.0)).sum() == 39_163
    assert test.labels(LabelRule(1.0, strict=True)).sum() == 39_158
    assert (test.ratings == 0).sum() == 798
    assert (test.ratings > 5).sum() == 594
    positives = torch.zeros(test.n_users).index_add_(0, test.users, test.labels(data.label_rule))
    assert (positives[test.users.unique()] == 0).sum() == 230
