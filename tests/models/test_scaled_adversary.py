"""Weights scaled as those of BMSE: what they are, what they bound, and whom they leave alone."""

import pytest
import torch
from small_estimators import built, roughened, train

from upo.errors import InputError
from upo.functional.propensity import clip_propensity, upo_loss
from upo.learners.propensity import adversary_weight
from upo.training.recording import Recording


def scaled(*overrides):
    """An estimator with rough propensities whose adversary has one weight for all pairs, near 1."""
    _, estimator, sampler = built("upo_dr", "propensity=upo_scaled", *overrides)
    roughened(estimator)
    head = estimator.networks["adversary"].layers[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(20.0)  # tanh(20) is 1 in float32
    return estimator, sampler.chunk(0, 1)[0].pairs


def test_a_constant_adversary_weighs_each_pair_by_its_scale():
    estimator, pairs = scaled()
    p_hat = clip_propensity(estimator.propensity(pairs), 0.01)
    weight = adversary_weight(estimator, pairs)
    torch.testing.assert_close((weight**2).mean(-1), torch.ones(2), rtol=1e-5, atol=0)  # float32
    ratio = weight * p_hat * (1 - p_hat)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)


def test_the_loss_bounds_the_imbalance_of_a_constant_in_its_units():
    # Lemma 2 of UPO with phi = 1: (o - p_hat) / (p_hat (1 - p_hat)) is the term of BMSE
    estimator, pairs = scaled()
    p_hat = clip_propensity(estimator.propensity(pairs), 0.01)
    weight = adversary_weight(estimator, pairs)
    unit = (weight * p_hat * (1 - p_hat)).mean(-1)
    imbalance = (pairs.o / p_hat - (1 - pairs.o) / (1 - p_hat)).mean(-1).abs() * unit
    bound = upo_loss(p_hat, pairs.o, weight, num_bins=10)
    assert (bound >= imbalance * (1 - 1e-5)).all()  # float32
    one_bin = upo_loss(p_hat, pairs.o, weight, num_bins=1)
    torch.testing.assert_close(one_bin, imbalance, rtol=1e-4, atol=1e-6)


def test_weights_are_bounded_pair_by_pair_and_carry_no_gradient_to_the_propensity():
    estimator, pairs = scaled()
    roughened(estimator, seed=1)
    seen = estimator.networks["adversary"].see(estimator, pairs)
    assert not seen.requires_grad
    assert (adversary_weight(estimator, pairs).abs() <= seen[..., -1] * (1 + 1e-6)).all()


def test_the_game_with_it_trains_and_a_replica_is_its_seed_alone():
    stack, alone = (train("upo_dr", "propensity=upo_scaled", seeds=s) for s in ((3, 8), (8,)))
    for name, value in alone.metrics.items():
        assert torch.isfinite(value).all(), name
        # float32 sums of different shapes, over a few dozen steps
        torch.testing.assert_close(stack.metrics[name][1:], value, rtol=1e-3, atol=1e-4, msg=name)


def test_its_steps_are_recorded_and_replayed_bit_for_bit(monkeypatch):
    recorded, record = [], Recording._record
    monkeypatch.setattr(Recording, "_record", lambda *a: recorded.append(a) or record(*a))
    given = ("upo_dr", "propensity=upo_scaled")
    each = train(*given, "trainer.replay=false").estimator.state_dict()
    assert not recorded
    again = train(*given, "trainer.replay=true").estimator.state_dict()
    assert any("adversary" in one[0].learners for one in recorded)
    assert all(torch.equal(value, each[name]) for name, value in again.items())


@pytest.mark.parametrize("p_min", [0.0, 1.0])
def test_a_scale_without_bound_is_refused(p_min):
    with pytest.raises(InputError, match="p_min"):
        built("upo_dr", "propensity=upo_scaled", f"+estimator.networks.adversary.p_min={p_min}")
