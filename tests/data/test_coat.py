import pytest
import torch

from upo.data.coat import CoatDataModule, read_coat
from upo.data.interactions import LabelRule
from upo.data.rating_data import overlap
from upo.errors import InputError

TRAIN = "0 1 5\n3 0 0\n"
TEST = "2 0 5\n0 4 0\n"
FILES = {
    "train.ascii": TRAIN,
    "test.ascii": TEST,
    "propensities.ascii": "1e-1 2e-1 .3\n.4 .5 .6\n",
    "user_item_features/user_features.ascii": "0 1\n1 0\n",
    "user_item_features/item_features.ascii": "0 1\n1 0\n1 1\n",
}


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        for name, text in (FILES | changes).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            if text is not None:
                path.write_bytes(text.encode())
        return tmp_path

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_matrices(write, end):
    data = read_coat(write(**{k: v.replace("\n", end) for k, v in FILES.items()}))
    assert (data.train.n_users, data.train.n_items) == (2, 3)
    assert data.train.keys.tolist() == [1, 2, 3]
    assert data.train.ratings.tolist() == [1, 5, 3]
    assert data.test.keys.tolist() == [0, 2, 4]
    assert data.propensities[1].tolist() == [0.4, 0.5, 0.6]
    assert data.train.item_features.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert data.test.user_features.tolist() == [[0, 1], [1, 0]]


def test_the_long_form_is_the_same(tmp_path):
    (tmp_path / "user.txt").write_text("1,0,3\n0,1,1\n0,2,5\n")
    (tmp_path / "random.txt").write_text("0,0,2\n0,2,5\n1,1,4\n")
    data = read_coat(tmp_path)
    assert data.train.keys.tolist() == [1, 2, 3]
    assert data.test.ratings.tolist() == [2, 5, 4]
    assert data.propensities is None
    assert data.train.user_features is None


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("train.ascii", None, "lacks train.ascii; get Coat from .*dataset.download=true"),
        ("test.ascii", "", r"test.ascii is empty \(0 bytes\)"),
        ("train.ascii", "0 1 5\n3 0\n", "train.ascii, line 2: 3 columns expected, found 2"),
        ("test.ascii", "2 0 5\n", "train.ascii has 2 lines x 3 columns but test.ascii 1 x 3"),
        ("test.ascii", "2 0 5\n0 6 0\n", "test.ascii, line 2, column 2: the rating 6 must be 1..5"),
        ("test.ascii", "2 0 5\n0 -1 0\n", "the rating -1 must be 1..5"),
        ("propensities.ascii", ".1 .2 .3\n", "propensities must be a table of 2 users x 3 items"),
        ("propensities.ascii", ".1 .2 .3\n0 1 1\n", "propensity of user 1 and item 0"),
        ("user_item_features/user_features.ascii", "0 1\n", "user features must be a table of 2"),
    ],
)
def test_damage_is_named(write, name, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_coat(write(**{name: text}))


def test_datamodule(write):
    data = CoatDataModule(str(write()), label_threshold=4.0).read()
    assert data.label_rule == LabelRule(4.0)
    assert data.name == "coat"


@pytest.mark.parametrize("form", ["coat", "coat-lf", "coat-long"])
def test_the_genuine_files(real_data, form):
    data = read_coat(real_data(form, "user.txt" if form == "coat-long" else "train.ascii"))
    train, test = data.train, data.test
    assert (train.n_users, train.n_items) == (290, 300)
    assert torch.bincount(train.ratings.long()).tolist() == [0, 1901, 1437, 1717, 1275, 630]
    assert torch.bincount(test.ratings.long()).tolist() == [0, 1879, 899, 1002, 641, 219]
    assert train.labels(data.label_rule).sum() == 3622
    assert test.labels(data.label_rule).sum() == 1862
    assert torch.bincount(train.users).tolist() == [24] * 290
    assert torch.bincount(test.users).tolist() == [16] * 290
    both = overlap(data)
    assert both.sum() == 366
    rows = torch.searchsorted(train.keys, test.keys[both])
    assert torch.equal(train.ratings[rows], test.ratings[both])
    if form == "coat":
        assert data.propensities.mean().item() == pytest.approx(0.080019, abs=5e-7)
        assert data.propensities.sum().item() == pytest.approx(6961.6, abs=0.05)
        observed = data.propensities[train.users, train.items]
        assert observed.mean().item() == pytest.approx(0.165215, abs=5e-7)
    if form != "coat-long":
        assert train.user_features.shape == (290, 14)
        assert train.item_features.shape == (300, 33)
        assert train.item_features.sum(1).unique().tolist() == [4]
