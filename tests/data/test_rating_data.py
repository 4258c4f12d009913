import pytest
import torch

from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData, drop_overlap, overlap, report
from upo.errors import InputError


def log(rows, size=(4, 5)):
    users, items, ratings = zip(*rows, strict=True)
    return Interactions.validated(
        torch.tensor(users), torch.tensor(items), torch.tensor(ratings), *size
    )


TRAIN = [(0, 0, 1.0), (0, 1, 4.0), (1, 2, 5.0)]
TEST = [(0, 1, 2.0), (1, 2, 5.0), (2, 3, 1.0), (2, 0, 4.0)]


def build(train=TRAIN, test=TEST, **kwargs):
    test = None if test is None else log(test)
    return RatingData("toy", log(train), test, LabelRule(3.0), **kwargs)


def test_report():
    assert report(build()).splitlines() == [
        "toy: 4 users x 5 items",
        "                             train      test",
        "  rows                           3         4",
        "  density                 15.0000%  20.0000%",
        "  users with rows                2         3",
        "  items with rows                3         4",
        "  ratings                     1..5      1..5",
        "  mean rating               3.3333    3.0000",
        "  positive (rating >= 3)    66.67%    50.00%",
        "  pairs in train and test: 2 (50.0% of test), 1 with the same rating",
        "  only in test: 1 users, 1 items",
        "  without train rows: 2 users, 2 items",
    ]


def test_report_without_a_test_set():
    lines = report(build(test=None)).splitlines()
    assert lines[2].split() == ["rows", "3", "-"]
    assert len(lines) == 9


def test_overlap_is_dropped():
    data = build()
    assert overlap(data).tolist() == [True, True, False, False]
    dropped = drop_overlap(data)
    assert dropped.test.keys.tolist() == [10, 13]
    assert dropped.test.ratings.tolist() == [4.0, 1.0]
    assert not overlap(dropped).any()
    assert drop_overlap(build(test=None)).test is None


def test_overlap_may_be_all():
    with pytest.raises(InputError, match="drop_overlap=true leaves nothing to test on"):
        drop_overlap(build(test=TRAIN))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"train": [(0, 0, 1.0)]}, "toy, train: no positive label .* 'rating >= 3'"),
        ({"test": [(0, 0, 4.0)]}, "toy, test: no negative label .* dataset.label_threshold"),
        (
            {"propensities": torch.ones(5, 4)},
            r"must be a table of 4 users x 5 items, got .*\(5, 4\)",
        ),
        (
            {"propensities": torch.zeros(4, 5)},
            r"propensity of user 0 and item 0 .* lie in \(0, 1\]",
        ),
        ({"propensities": torch.full((4, 5), torch.nan)}, "is nan"),
    ],
)
def test_what_is_wrong_is_named(kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        build(**kwargs)


def test_sizes_must_agree():
    with pytest.raises(InputError, match="train has 4 users x 5 items but test has 4 x 6"):
        RatingData("toy", log(TRAIN), log(TEST, (4, 6)), LabelRule(3.0))
