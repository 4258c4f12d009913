"""Thirds of users and items by activity: they part the test set, and are measured as it is."""

from itertools import pairwise

import torch
from test_constant import sample
from worlds import make_estimator, make_space

from upo.evaluation import groups
from upo.evaluation.groups import NAMES, by_activity


def test_groups_part_the_rows_and_are_measured_like_them():
    test, estimator = sample(400), make_estimator(make_space()).eval()
    space = estimator.space
    found = by_activity(estimator, test)
    for of, ids, logged in (
        ("users", test.users, space.keys // space.n_items),
        ("items", test.items, space.keys % space.n_items),
    ):
        mine = [group for group in found if group.of == of]
        assert [group.name for group in mine] == list(NAMES)
        assert sum(group.rows for group in mine) == len(test)
        assert sum(group.members for group in mine) == len(ids.unique())
        assert all(a.high < b.low for a, b in pairwise(mine))
        activity = torch.bincount(logged, minlength=20)[ids]
        for group in mine:
            rows = (activity >= group.low) & (activity <= group.high)
            assert int(rows.sum()) == group.rows
            again = test.measure(estimator, rows.expand(3, -1))
            for name, value in group.metrics.items():
                torch.testing.assert_close(value, again[name], equal_nan=True)


def test_equally_active_users_are_one_group():
    test, space = sample(200), make_space()
    space.keys = torch.arange(space.n_users * space.n_items)
    estimator = make_estimator(make_space())
    estimator.space.keys = space.keys
    found = [group for group in by_activity(estimator, test) if group.of == "users"]
    assert [(g.name, g.low, g.high) for g in found] == [(NAMES[0], 17, 17)]


def test_a_large_test_set_is_read_in_part(monkeypatch):
    test, estimator = sample(400), make_estimator(make_space()).eval()
    monkeypatch.setattr(groups, "MOST_ROWS", 3 * 200)
    found = by_activity(estimator, test)
    users = len(test.users.unique())
    assert sum(group.members for group in found if group.of == "users") == users // 2
