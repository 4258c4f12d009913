"""The clip: numbers, and the one that the log decides."""

import math

import pytest
import torch
from worlds import make_estimator, make_space

from upo.errors import InputError
from upo.models.kernel_weight import KernelWeight
from upo.models.propensity import AdditivePropensity
from upo.models.weighting import ClippedPropensity
from upo.pairs import PairSpace

SEEDS = (3, 0, 11)


def skewed(seeds=(0,), holdout=0.0, users=200, items=100):
    """A log in which users and items differ by factors of 20 in how much they are observed."""
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(n, 1, generator=g).mul(0.8).exp() for n in (users, items))
    p = (0.05 * a * b.T).clamp(max=0.9).flatten()
    keys = torch.nonzero(torch.bernoulli(p, generator=g)).flatten()
    labels = (torch.rand(len(keys), generator=g) < 0.4).float()
    return PairSpace(keys, labels, users, items, list(seeds), holdout)


def sample_size(space):
    """Of weights by the margins that a propensity starts from, under `p_min: auto`."""
    estimator = make_estimator(space)
    estimator.networks["propensity"] = AdditivePropensity(space.sizes, dim=4, start="margins")
    estimator._weighting = ClippedPropensity(p_min="auto")
    pairs = space.pairs_at(space.keys.expand(space.replicas, -1), len(space.keys))
    w = 1.0 / estimator.p_hat(pairs).double()
    return estimator.weighting.floor(estimator), w.mean(-1).square() / w.square().mean(-1)


def test_a_clip_by_the_log_leaves_four_fifths_of_the_rows():
    space = skewed()
    floor, share = sample_size(space)
    assert floor > 0.5 * space.density
    # tables are float32, and their margins are those without the held-out cells
    assert float(share[0]) == pytest.approx(0.8, abs=0.01)


def test_a_clip_by_the_log_is_half_the_density_where_weights_are_mild():
    space = make_space(n_users=60, n_items=40)
    floor, share = sample_size(space)
    assert floor == pytest.approx(0.5 * space.density)
    assert bool((share > 0.8).all())


def test_a_clip_by_the_log_is_the_same_for_every_replica_and_share_held_out():
    floors = [
        sample_size(space)[0]
        for space in (skewed(SEEDS), skewed([11]), skewed(SEEDS, 0.3), skewed(SEEDS).part([1]))
    ]
    assert floors == [floors[0]] * 4


def test_rows_of_large_logs_stand_for_all(monkeypatch):
    every = skewed().clip
    monkeypatch.setattr("upo.pairs.summary.SAMPLE", 400)
    some = skewed().clip
    # 400 of 1,900 rows: an effective sample size is then known to 3 %, and the clip to some 10 %
    assert some != every
    assert some == pytest.approx(every, rel=0.3)


@pytest.mark.parametrize("make", [ClippedPropensity, KernelWeight])
@pytest.mark.parametrize("p_min", [-0.1, math.nan, math.inf, [0.1, -1.0], "abc", "Auto", None, {}])
def test_a_clip_that_is_none_is_named(make, p_min):
    with pytest.raises(
        InputError, match=r"estimator\.weighting\.p_min must be at least 0, or auto"
    ):
        make(p_min=p_min)


def test_a_clip_that_is_no_probability_is_named():
    with pytest.raises(InputError, match="relative=false"):
        ClippedPropensity(p_min=1.5, relative=False)
