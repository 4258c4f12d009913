"""The battery's worlds: what their plans ask for is what comes out, on every machine and seed."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import upo
from upo.data.battery import LOGS, PLANS, SYNTHETIC, BatteryDataModule, read_battery
from upo.data.exposure_plan import WorldPlan
from upo.data.exposure_world import ExposureWorld

SMALL = ["tiny", "small", "taste", "half_stars", "single_rating", "positive_95"]
PLAN = WorldPlan(200, 150, 0.1, 0.6, 0.4)


@pytest.fixture(scope="module")
def logs():
    return {name: read_battery(name) for name in SMALL}


def labels(rows, data):
    return rows.labels(data.label_rule).double()


def grid(world):
    """Every pair of a world."""
    keys = torch.arange(world.n_users * world.n_items)
    return keys // world.n_items, keys % world.n_items


@pytest.mark.parametrize("name", [name for name in SMALL if name in PLANS])
def test_density_and_positives_are_those_of_the_plan(logs, name):
    data, plan = logs[name], PLANS[name]
    # calibrated on 2^16 pairs, then drawn: 3 % of the density, 1.5 points of the shares
    density = plan.density * (1 - plan.single_share) + plan.single_share / plan.n_items
    assert data.train.density == pytest.approx(density, rel=0.03)
    assert float(labels(data.train, data).mean()) == pytest.approx(plan.positive_log, abs=0.015)
    assert float(labels(data.test, data).mean()) == pytest.approx(plan.positive_all, abs=0.015)
    assert set(data.train.ratings.tolist()) <= set(plan.ratings)


@pytest.mark.parametrize("name", SMALL)
def test_the_true_preference_beats_the_constant(logs, name):
    data = logs[name]
    y, f = labels(data.test, data), data.truth.preference(data.test.users, data.test.items)
    auc, oracle, constant = upo.metrics.AUC(), upo.metrics.LogLoss(), upo.metrics.LogLoss()
    auc.update(f, y)
    oracle.update(f, y)
    constant.update(y.mean().expand_as(y), y)
    assert float(auc.compute()) > 0.8
    assert float(oracle.compute()) < 0.8 * float(constant.compute())


@pytest.mark.parametrize("name", SMALL)
def test_a_log_is_a_function_of_its_seed(logs, name):
    again, other = read_battery(name), read_battery(name, seed=1)
    for rows, same, new in (
        (logs[name].train, again.train, other.train),
        (logs[name].test, again.test, other.test),
    ):
        assert torch.equal(rows.keys, same.keys)
        assert torch.equal(rows.ratings, same.ratings)
        assert len(rows) == len(rows.keys.unique())
        assert not torch.equal(rows.ratings[:500], new.ratings[:500])


def test_what_is_odd_about_a_world_is_there(logs):
    counts = torch.bincount(logs["single_rating"].train.users, minlength=3000)
    # those who are meant to, and a few of the others
    assert 900 <= int((counts == 1).sum()) < 930
    assert len(logs["half_stars"].train.ratings.unique()) == 10
    per_user = torch.bincount(logs["taste"].train.users, minlength=500).double()
    assert float(per_user.mean()) == pytest.approx(25, rel=0.03)
    taste = logs["taste"].truth
    users, items = grid(taste)
    by_item = taste.preference(users, items).view(500, 500).mean(0)
    # no item is better than another: what is left is the mean of 500 users' tastes
    assert float(by_item.std()) < 0.06


def test_an_item_that_draws_most_is_drawn_most():
    plan = replace(PLAN, n_users=2000, popularity_sd=1.8, density=0.02)
    counts = torch.bincount(ExposureWorld(plan).log().items, minlength=150).sort(descending=True)[0]
    assert float(counts[:15].sum() / counts.sum()) > 0.5, "a tenth of the items, half the ratings"


@pytest.mark.parametrize("single", [0.0, 0.4])
def test_the_propensity_is_the_frequency_of_being_seen(single):
    """One world's latents, 300 logs: only the draws of the log differ between them."""
    world = ExposureWorld(WorldPlan(30, 20, 0.3, 0.6, 0.5, single_share=single))
    users, items = grid(world)
    p, times, draws = world.propensity(users, items), torch.zeros(600), 300
    for number in range(draws):
        keys = log_of(world, number).keys
        times[keys] += 1
    # pairs are independent (those of one single rating nearly): the worst of 600 pairs
    z = (times / draws - p) / (p * (1 - p) / draws).sqrt()
    assert float(z.abs().max()) < 4.5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.25)


def log_of(world, number):
    """Another log of the same users, items and ratings."""
    own = ExposureWorld.__dict__["_uniform"]

    class Redrawn(ExposureWorld):
        def _uniform(self, purpose, *index):
            drawn = purpose in ("count", "item", "kept", "one")
            return own(self, f"{purpose} {number}" if drawn else purpose, *index)

    other = object.__new__(Redrawn)
    other.__dict__.update(world.__dict__)
    return other.log()


def test_self_selection_is_on_the_rating():
    world = ExposureWorld(PLAN)
    users, items = grid(world)
    p, ratings = world.propensity(users, items), world.rating(users, items)
    mean = [float(p[ratings == r].mean()) for r in PLAN.ratings]
    assert all(a < b for a, b in pairwise(mean))
    assert world.label(users, items).tolist() == (ratings >= PLAN.threshold).float().tolist()
    plain = ExposureWorld(replace(PLAN, positive_log=0.4))
    assert torch.equal(plain.rating(users, items), ratings), "selection changes no rating"
    q = plain.propensity(users, items)
    assert abs(float(q[ratings == 5].mean() / q[ratings == 1].mean()) - 1) < 0.15


def test_answers_have_the_shape_of_the_question():
    world = ExposureWorld(PLAN)
    users, items = torch.randint(0, 150, (2, 3, 4))
    for answer in (world.propensity, world.preference, world.label, world.rating):
        assert answer(users, items).shape == (3, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 6.0}, "one class"),
        ({"positive_log": 0.3}, "at least the share"),
        ({"density": 1.5}, "density lies in"),
        ({"density": 0.9, "positive_log": 0.9}, "ask for less"),
    ],
)
def test_plans_that_cannot_be_are_refused(change, said):
    with pytest.raises(upo.InputError, match=said):
        ExposureWorld(replace(PLAN, **change))


def test_every_log_has_a_name_and_others_are_refused():
    assert len(set(LOGS)) == len(LOGS) == 14
    assert set(LOGS) >= {*PLANS, *SYNTHETIC}
    with pytest.raises(upo.InputError, match=r"dataset\.log=nowhere is unknown; known are coat"):
        BatteryDataModule("nowhere", name="battery", data_dir="data")
    with pytest.raises(upo.InputError, match=r"u\.data is missing; .* or set dataset\.data_dir"):
        read_battery("ml100k_4", "nowhere")


def test_movielens_is_split_at_random(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    lines = [f"{u}\t{i}\t{1 + (u * i) % 5}\t0" for u in range(1, 41) for i in range(1, 26)]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    data = read_battery("ml100k_4", tmp_path, seed=3)
    assert (len(data.train), len(data.test)) == (800, 200)
    assert not torch.isin(data.test.keys, data.train.keys).any()
    assert data.test.ratings.min() == 1
    assert len(data.test.users.unique()) > 30
