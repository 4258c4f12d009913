import hashlib

import pytest
import torch

from upo.data import world as world_module
from upo.data.interactions import LabelRule
from upo.data.synthetic import SyntheticDataModule, SyntheticWorld, make_synthetic
from upo.errors import InputError


@pytest.fixture(scope="module")
def world():
    return SyntheticWorld()


@pytest.fixture(scope="module")
def pairs():
    keys = torch.arange(300 * 300)
    return keys // 300, keys % 300


def test_the_same_on_every_machine():
    data = make_synthetic(SyntheticWorld(40, 50, seed=5))
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        digest.update(part.keys.numpy().tobytes() + part.ratings.numpy().tobytes())
    everyone, everything = torch.arange(40)[:, None], torch.arange(50)[None, :]
    digest.update(data.truth.propensity(everyone, everything).numpy().tobytes())
    digest.update(data.train.user_features.numpy().tobytes())
    assert digest.hexdigest() == "ff9273edc2d29726161248bb2f5bdfa351d07ad48b590cd3528883ebefa2163e"


def test_log_and_truth_agree(world, pairs):
    data = make_synthetic(world)
    seen = world.observed(*pairs)
    assert data.train.keys.tolist() == torch.nonzero(seen)[:, 0].tolist()
    assert torch.equal(data.train.ratings, world.rating(*pairs)[seen])
    for part in (data.train, data.test):
        assert torch.equal(part.labels(data.label_rule), world.label(part.users, part.items))


def test_pairs_are_independent_of_what_else_is_asked(world, pairs):
    order = torch.randperm(90_000, generator=torch.Generator().manual_seed(0))[:600]
    some = pairs[0][order].view(20, 30), pairs[1][order].view(20, 30)
    for ask in (world.rating, world.propensity, world.preference, world.label, world.observed):
        assert torch.equal(ask(*some), ask(*pairs)[order].view(20, 30))
    assert world.propensity(*some).dtype == world.preference(*some).dtype == torch.float64
    assert world.label(*some).dtype == torch.float32


def test_blocks_do_not_show(world, monkeypatch):
    log, sample = world.log(), world.uniform_sample()
    monkeypatch.setattr(world_module, "_BLOCK", 7 * 300 + 1)
    assert torch.equal(world.log().keys, log.keys)
    assert torch.equal(world.uniform_sample().keys, sample.keys)
    assert torch.equal(world.log().ratings, log.ratings)


def test_the_pair_space_may_be_huge():
    world = SyntheticWorld(5_000, 1_000_000, dim=1)
    last = torch.tensor([4_999]), torch.tensor([999_999])
    assert 0 < world.propensity(*last) < 1
    assert world.label(*last) in (0, 1)


@pytest.mark.parametrize("size", [(300, 300, 0.08), (150, 400, 0.2), (700, 500, 0.02)])
def test_density_is_as_asked(size):
    world = SyntheticWorld(*size[:2], density=size[2], seed=3)
    keys = torch.arange(size[0] * size[1])
    p = world.propensity(keys // size[1], keys % size[1])
    # exact but for the grid of the offset; the last world is calibrated on 2^16 hashed pairs
    assert p.mean().item() == pytest.approx(size[2], rel=2e-2 if len(keys) > 2**16 else 1e-3)
    deviation = (p * (1 - p)).sum().sqrt()
    assert abs(len(world.log()) - p.sum()) < 5 * deviation
    assert p.min() >= 1 / 128
    assert p.max() <= 127 / 128
    assert torch.equal(p * 2**24, (p * 2**24).round())


def test_ratings_are_missing_not_at_random(world, pairs):
    label, p = world.label(*pairs), world.propensity(*pairs)
    everywhere = label.mean().item()
    logged = world.log().labels(world.label_rule).mean().item()
    assert 0.35 < everywhere < 0.5
    assert logged > everywhere + 0.15
    # weighted by the true propensities the log is unbiased, within five standard errors
    seen = world.observed(*pairs)
    estimate = (label[seen] / p[seen]).sum() / len(p)
    error = (label * (1 - p) / p).sum().sqrt() / len(p)
    assert abs(estimate - everywhere) < 5 * error


def test_without_rating_bias_the_log_is_as_good(pairs):
    world = SyntheticWorld(rating_bias=0)
    logged = world.log().labels(world.label_rule).mean().item()
    assert logged == pytest.approx(world.label(*pairs).mean().item(), abs=0.03)  # 5 deviations


@pytest.mark.parametrize("rule", [LabelRule(3.0), LabelRule(3.0, strict=True), LabelRule(1.5)])
def test_preference_is_the_chance_of_the_label(pairs, rule):
    world = SyntheticWorld(label_rule=rule)
    chance, label = world.preference(*pairs), world.label(*pairs)
    for low in torch.arange(0, 1, 0.1):
        inside = (chance >= low) & (chance < low + 0.1)
        error = (chance * (1 - chance))[inside].sum().sqrt() / inside.sum()
        assert abs(label[inside].mean() - chance[inside].mean()) < 5 * error


def test_the_sample_is_uniform(world):
    sample = world.uniform_sample(16)
    assert torch.bincount(sample.users).tolist() == [16] * 300
    counts = torch.bincount(sample.items, minlength=300).double()
    # a chi-square of 299 degrees of freedom: 299, give or take 24.5
    assert abs(((counts - 16) ** 2 / 16).sum() - 299) < 5 * 24.5
    assert len(world.uniform_sample(300)) == 90_000


def test_features_tell_something(world):
    log = world.log()
    assert log.user_features.shape == log.item_features.shape == (300, 5)
    quality, popular = world.item_features[:, -1].double(), world._quality
    assert torch.corrcoef(torch.stack([quality, popular]))[0, 1] > 0.5


def test_seeds_differ():
    a, b = SyntheticWorld(30, 30, seed=1), SyntheticWorld(30, 30, seed=2)
    assert not torch.equal(a.user_features, b.user_features)
    assert a.log().keys.tolist() != b.log().keys.tolist()


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"n_users": "abc"}, "dataset.n_users must be at least 2, got abc"),
        ({"n_users": 1}, "dataset.n_users must be at least 2, got 1"),
        ({"dim": 0}, "dataset.dim must be at least 1"),
        ({"density": 0.0}, r"dataset.density must lie in \[0.01, 0.5\], got 0.0"),
        ({"density": 0.9}, "got 0.9; try 0.08"),
        ({"rating_bias": -1.0}, "dataset.rating_bias must be at least 0, got -1.0"),
        ({"feature_noise": float("nan")}, "dataset.feature_noise must be at least 0, got nan"),
        ({"label_rule": LabelRule(5.0, strict=True)}, "must divide the ratings 1..5 into two"),
        ({"label_rule": LabelRule(1.0)}, "'rating >= 1'"),
    ],
)
def test_arguments_out_of_range(kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        SyntheticWorld(**kwargs)


def test_sample_out_of_range(world):
    with pytest.raises(InputError, match=r"test_per_user must lie in 1..300 \(n_items\), got 301"):
        world.uniform_sample(301)


def test_datamodule():
    data = SyntheticDataModule(40, 50, label_threshold=4.0, world_seed=5, test_per_user=9).read()
    assert len(data.test) == 40 * 9
    assert str(data.truth.label_rule) == str(data.label_rule) == "rating >= 4"
