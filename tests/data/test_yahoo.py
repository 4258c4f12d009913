import pytest

from upo.data.yahoo import TEST_FILE, TRAIN_FILE, YahooDataModule, read_yahoo
from upo.errors import InputError


def write(folder, train="1\t1\t5\n1\t2\t1\n3\t4\t3\n", test="1\t3\t2\n2\t1\t4\n"):
    for name, text in ((TRAIN_FILE, train), (TEST_FILE, test)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_ids_are_shifted(tmp_path):
    data = read_yahoo(write(tmp_path), n_users=3, n_items=4)
    assert data.train.keys.tolist() == [0, 1, 11]
    assert data.train.ratings.tolist() == [5, 1, 3]
    assert data.test.keys.tolist() == [2, 4]


def test_the_survey_has_its_own_size(tmp_path):
    data = YahooDataModule(str(write(tmp_path))).read()
    assert (data.train.n_users, data.train.n_items) == (15_400, 1_000)
    assert (data.test.n_users, data.test.n_items) == (15_400, 1_000)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": None}, f"lacks {TRAIN_FILE}; request Yahoo! R3 at"),
        ({"test": ""}, "is empty"),
        ({"test": "1\t3\t2\n2\t1\n"}, "test.txt, line 2: 3 columns expected, found 2"),
        ({"test": "1,3,2\n2,1,4\n"}, "test.txt, line 1: 3 columns expected, found 1"),
        ({"train": "0\t1\t5\n1\t2\t1\n"}, r"\(ids less 1\): row 1 has user index -1"),
        ({"train": "1\t1\t5\n4\t2\t1\n"}, "row 2 has user index 3, but indices must lie in 0..2"),
        ({"train": "1\t1\t5\n1\t5\t1\n"}, "row 2 has item index 4"),
        ({"train": "1\t1\t5\n1\t1\t1\n"}, "occurs more than once"),
        ({"train": "1\t1\t0\n1\t2\t4\n"}, "row 1 has the rating 0, but ratings must lie in 1..5"),
        ({"train": "1\t1\t3\n1\t2\t4\n"}, "yahoo, train: no negative label"),
    ],
)
def test_damage_is_named(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        read_yahoo(write(tmp_path, **changes), n_users=3, n_items=4)


def test_there_is_no_download(tmp_path):
    with pytest.raises(
        InputError, match=f"signed agreement; request it at http.* put {TRAIN_FILE}"
    ):
        YahooDataModule(str(tmp_path), download=True).read()
