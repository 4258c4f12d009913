"""The two players of the minimax game, and what every player leaves alone."""

import pytest
import torch
from omegaconf import ListConfig
from worlds import adam, make_estimator, make_learners, make_space, parameters, replica

from upo.errors import InputError
from upo.functional.pointwise import cross_entropy, squared_error
from upo.functional.propensity import binned_upo_loss
from upo.learners.base import GradientLearner
from upo.learners.propensity import (
    AdversaryLearner,
    PropensityLearner,
    UPOPenalty,
    adversary_weight,
)
from upo.pairs import BatchSampler

PLAYERS = ["adversary", "propensity", "prediction", "imputation"]
RULES = ["equal_width", "equal_mass", "adaptive"]


def start(rule="equal_mass", **settings):
    space = make_space(**settings)
    estimator = make_estimator(space, rule)
    estimator.bins.refresh(estimator, 0)
    return estimator, BatchSampler(space, "debias", 20, 100)


def gain_of(estimator, pairs):
    """L_UPO as the adversary sees it."""
    with torch.no_grad():
        p_hat, bins = estimator.propensity(pairs), estimator.bins
        weight = adversary_weight(estimator, pairs)
        return binned_upo_loss(p_hat, pairs.o, weight, bins.index(p_hat), bins.num_bins)


def play(estimator, sampler, steps, first=0, **settings):
    learners = make_learners(estimator, **settings)
    for batch in sampler.chunk(first, steps):
        for learner in learners.values():
            learner.update(batch)
    return parameters(estimator.networks)


@pytest.mark.parametrize("player", PLAYERS)
def test_a_step_moves_the_players_own_network_alone(player):
    estimator, sampler = start()
    before = parameters(estimator.networks)
    make_learners(estimator)[player].update(sampler.chunk(0, 1)[0])
    for name, p in estimator.networks.named_parameters():
        moved = not torch.equal(p, before[name])
        assert moved == name.startswith(f"{player}."), name
        assert p.grad is None or name.startswith(f"{player}."), name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_an_ascent_step_does_not_lower_the_loss_of_its_batch(rule, seed):
    estimator, sampler = start(rule, seeds=range(seed, seed + 10))
    pairs = (batch := sampler.chunk(0, 1)[0]).pairs
    learner = AdversaryLearner(estimator, optimizer=adam(lr=1e-4, weight_decay=0.0))
    before = gain_of(estimator, pairs)
    logs = learner.update(batch)
    torch.testing.assert_close(logs["gain"], before, rtol=1e-5, atol=1e-7)  # float32
    # Adam's first step moves every weight by 1e-4 up the slope; the slope's change is second order
    assert (gain_of(estimator, pairs) >= before - 1e-7).all()
    assert (gain_of(estimator, pairs) > before).any()


def test_many_ascent_steps_find_a_better_adversary():
    estimator, sampler = start()
    learner = AdversaryLearner(estimator, optimizer=adam(lr=0.01, weight_decay=0.0))
    batch = sampler.chunk(0, 1)[0]
    before = gain_of(estimator, batch.pairs)
    for _ in range(100):
        learner.update(batch)
    assert (gain_of(estimator, batch.pairs) > 1.2 * before).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_descent_step_lowers_the_objective_of_its_batch(rule):
    estimator, sampler = start(rule)
    batch = sampler.chunk(0, 1)[0]
    learner = PropensityLearner(
        estimator,
        optimizer=adam(lr=1e-4, weight_decay=0.0),
        loss=cross_entropy,
        penalties={"upo": UPOPenalty(beta=1.0)},
    )
    first = learner.update(batch)
    second = learner.update(batch)
    torch.testing.assert_close(first["upo"].shape, second["loss"].shape)
    assert (second["loss"] + second["upo"] < first["loss"] + first["upo"]).all()


def propensity_after(estimator, sampler, penalties, steps=10):
    learner = PropensityLearner(
        estimator, optimizer=adam(), loss=cross_entropy, penalties=penalties
    )
    for batch in sampler.chunk(0, steps):
        learner.update(batch)
    return parameters(estimator.networks["propensity"])


@pytest.mark.parametrize("off", ["beta", "weight"])
def test_no_beta_or_no_weight_leaves_the_cross_entropy(off):
    plain = propensity_after(*start(), None)
    estimator, sampler = start()
    if off == "weight":  # w = tanh(0)
        for p in estimator.networks["adversary"].layers[-1].parameters():
            torch.nn.init.zeros_(p)
    game = {"upo": UPOPenalty(beta=0.0 if off == "beta" else 1.0)}
    for name, p in propensity_after(estimator, sampler, game).items():
        assert torch.equal(p, plain[name]), name
    active = propensity_after(*start(), {"upo": UPOPenalty(beta=1.0)})
    assert not torch.equal(active["user.weight"], plain["user.weight"])


@pytest.mark.parametrize(
    "given", [[0.0, 1.0, 5.0], ListConfig([0.0, 1.0, 5.0])], ids=["list", "config"]
)
def test_every_replica_has_its_own_beta(given):
    stack = propensity_after(*start(), {"upo": UPOPenalty(beta=given)})
    for r, beta in enumerate(given):
        alone = propensity_after(*start(seeds=[r]), {"upo": UPOPenalty(beta=beta)})
        for name, p in stack.items():
            # ten float32 steps of Adam, sums in another order
            torch.testing.assert_close(replica(p, r, 3), alone[name].flatten(), rtol=0, atol=1e-5)


def test_a_replica_of_the_joint_schedule_equals_its_seed_alone():
    seeds, steps = [4, 0, 9], 100
    space = make_space(seeds, holdout=0.2)
    stack = play(make_estimator(space), BatchSampler(space, "debias", 20, 100), steps)
    for r, seed in enumerate(seeds):
        own = make_space([seed], holdout=0.2)
        alone = play(make_estimator(own), BatchSampler(own, "debias", 20, 100), steps)
        for name, p in stack.items():
            # float32: batched kernels may sum in another order, and Adam divides by small moments
            torch.testing.assert_close(replica(p, r, 3), alone[name].flatten(), rtol=0, atol=1e-5)


def test_the_players_share_the_forward_pass_of_a_batch():
    estimator, sampler = start()
    calls = []
    for role, network in estimator.networks.items():
        network.register_forward_hook(lambda *_, role=role: calls.append(role))
    learners = make_learners(estimator)
    batch = sampler.chunk(0, 1)[0]
    learners["adversary"].update(batch)
    learners["propensity"].update(batch)
    # one forward of the propensity for both; w is computed anew after the adversary's step
    assert sorted(calls) == ["adversary", "adversary", "propensity"]
    calls.clear()
    learners["prediction"].update(batch)
    # O and D each once; the propensity on O only
    assert sorted(calls) == ["imputation"] * 2 + ["prediction"] * 2 + ["propensity"]
    calls.clear()
    learners["imputation"].update(batch)
    # the prediction took a step and is evaluated again on O; the rest is remembered
    assert sorted(calls) == ["prediction"]


@pytest.mark.parametrize("player", PLAYERS)
def test_nothing_stale_is_remembered_after_a_step(player):
    estimator, sampler = start()
    batch = sampler.chunk(0, 1)[0]
    roles = ["prediction", "imputation", "propensity"]

    def look():
        values = {r: estimator.logit(r, batch.pairs).detach().clone() for r in roles}
        return values | {"features": estimator.features("propensity", batch.pairs).clone()}

    before = look()
    make_learners(estimator)[player].update(batch)
    after = look()
    fresh = {r: estimator.networks[r](batch.pairs.users, batch.pairs.items) for r in roles}
    for role in roles:
        assert torch.equal(after[role], fresh[role])
        assert torch.equal(after[role], before[role]) == (role != player)
    features = estimator.networks["propensity"].features(batch.pairs.users, batch.pairs.items)
    assert torch.equal(after["features"], features)
    assert not after["features"].requires_grad


def test_a_value_without_graph_is_not_handed_to_training():
    estimator, sampler = start()
    batch = sampler.chunk(0, 1)[0]
    with torch.no_grad():
        estimator.propensity(batch.pairs)
        assert not estimator.logit("propensity", batch.pairs).requires_grad
    assert estimator.logit("propensity", batch.pairs).requires_grad
    with torch.no_grad():  # the other way round the value may be shared
        kept = estimator.logit("propensity", batch.pairs)
    assert estimator.logit("propensity", batch.pairs) is kept


@pytest.mark.parametrize("loss", [cross_entropy, squared_error], ids=lambda f: f.__name__)
def test_the_propensity_meets_the_density(loss):
    space = make_space()
    estimator = make_estimator(space)
    # a fit on all of D, without decay: the intercept's optimum makes the means meet
    learner = PropensityLearner(estimator, optimizer=adam(lr=0.03, weight_decay=0.0), loss=loss)
    sampler = BatchSampler(space, "propensity", 0, space.n_pairs)
    for batch in sampler.chunk(0, 400):
        logs = learner.update(batch)
    pairs = sampler.chunk(0, 1)[0].pairs
    with torch.no_grad():
        p_hat = estimator.propensity(pairs)
    assert set(logs) == {"loss"}
    # exactly equal for cross-entropy at its optimum, within a few % for the Brier score
    torch.testing.assert_close(p_hat.mean(-1), torch.full((3,), space.density), rtol=0.05, atol=0)
    assert p_hat.min() < 0.3  # far below the 0.5 of a double sigmoid


def test_a_wrong_network_or_beta_is_named():
    estimator, _ = start()
    with pytest.raises(InputError, match="'expert'"):
        AdversaryLearner(estimator, optimizer=adam(), network="expert")
    for beta in (-0.1, [1.0, -1.0, 0.0], float("nan")):
        with pytest.raises(InputError, match="beta"):
            UPOPenalty(beta=beta)


def test_a_step_descends_the_sum_of_the_replicas_losses():
    estimator, _ = start()

    class Shrink(GradientLearner):
        def update(self, batch):
            self.step(sum((p**2).reshape(3, -1).sum(-1) for p in self.params))
            return {}

    learner = Shrink(estimator, optimizer=adam(weight_decay=0.0), network="prediction")
    before = parameters(estimator.networks["prediction"])
    learner.update(None)
    for name, p in estimator.networks["prediction"].named_parameters():
        assert torch.equal(p.grad, 2 * before[name])
