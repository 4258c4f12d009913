"""The semi-synthetic world: classes, propensities, and the draws of log and test."""

import pytest
import torch

from upo.data.rating_data import report
from upo.data.semisynthetic import make_semisynthetic
from upo.data.semisynthetic_world import (
    CUTS_AS_PUBLISHED,
    SemiSyntheticWorld,
    class_propensities,
    classes_by_share,
)

N_USERS, N_ITEMS = 90, 70


def make_world(p=0.5, **arguments):
    g = torch.Generator().manual_seed(1)
    classes = classes_by_share(torch.randn(N_USERS, N_ITEMS, generator=g))
    return SemiSyntheticWorld(classes, N_USERS, N_ITEMS, p=p, **arguments)


def every_pair(world):
    keys = torch.arange(world.n_users * world.n_items)
    return keys // world.n_items, keys % world.n_items


def keys_of(part):
    return part[0] * N_ITEMS + part[1]


def test_classes_have_the_shares_and_the_order_of_the_ratings():
    matrix = torch.randn(40, 25, generator=torch.Generator().manual_seed(0))
    classes = classes_by_share(matrix).long()
    assert torch.bincount(classes).tolist() == [530, 240, 140, 60, 30]
    published = classes_by_share(matrix, CUTS_AS_PUBLISHED).long()
    assert torch.bincount(published).tolist() == [530, 240, 140, 70, 20]
    assert (classes[matrix.flatten().argsort()].diff() >= 0).all()


@pytest.mark.parametrize("p", [0.4, 0.5, 0.6])
def test_propensities_are_powers_of_p(p):
    assert class_propensities(p) == (p**4, p**4, p**3, p**2, p)
    published = class_propensities(p, as_published=True)
    # only at 0.5 is the propensity of the highest class a code that is replaced again
    assert published == (p**4, p**4, p**3, p**2, p**3 if p == 0.5 else p)


def test_log_and_test_lie_where_they_should():
    world = make_world()
    log, test = keys_of(world.log()), keys_of(world.uniform_sample())
    cells = world.cells(torch.arange(len(world.cells)))
    assert len(world.cells) % N_ITEMS == 0
    assert len(world.cells) == pytest.approx(0.8 * N_USERS * N_ITEMS, abs=N_ITEMS / 2)
    assert len(torch.unique(cells)) == len(cells)
    assert torch.isin(log, cells).all()
    assert not torch.isin(test, cells).any()
    assert len(torch.unique(test)) == len(test) == round(0.2 * 0.2 * N_USERS * N_ITEMS)
    everything = torch.arange(N_USERS * N_ITEMS)
    assert torch.equal(world.cells.contain(everything), torch.isin(everything, cells))


def test_truth_is_a_function_of_seed_user_and_item():
    world, again, other = make_world(), make_world(), make_world(seed=1)
    users, items = every_pair(world)
    some = torch.tensor([5, 4000, 77])
    for what in ("propensity", "preference", "label", "observed"):
        all_at_once = getattr(world, what)(users, items)
        assert torch.equal(all_at_once, getattr(again, what)(users, items))
        assert torch.equal(all_at_once[some], getattr(world, what)(users[some], items[some]))
        if what in ("label", "observed"):
            assert not torch.equal(all_at_once, getattr(other, what)(users, items))


def test_a_larger_p_shows_more_and_changes_no_label():
    small, large = make_world(0.4), make_world(0.6)
    users, items = every_pair(small)
    assert torch.equal(small.label(users, items), large.label(users, items))
    seen_small, seen_large = small.observed(users, items), large.observed(users, items)
    assert (seen_large | ~seen_small).all()  # the draws are the same
    assert seen_large.sum() > seen_small.sum()


def test_draws_have_the_true_probabilities():
    world = make_world(0.6)
    users, items = every_pair(world)
    for draws, p in (
        (world.observed(users, items), world.propensity(users, items)),
        (world.label(users, items), world.preference(users, items)),
    ):
        for value in p.unique():
            of_class = draws[p == value].double()
            sd = float((value * (1 - value) / len(of_class)).sqrt())
            # one fixed draw per class; 4 deviations would fail once in 16,000 seeds
            assert of_class.mean() == pytest.approx(float(value), abs=4 * sd)


def test_missing_is_not_at_random():
    data = make_semisynthetic(make_world(), "world")
    assert data.train.ratings.mean() > data.test.ratings.mean() + 0.1
    share = len(data.train) / len(data.cells)
    assert f"cells to train on: 5,040 (80.0%), {share:.2%} observed" in report(data)
