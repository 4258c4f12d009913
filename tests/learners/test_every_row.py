"""What holds for the learners of every estimator: gradients, extreme propensities, odd batches."""

import pytest
import torch
from rows import each
from small_estimators import built, roughened

from upo.learners.base import GradientLearner
from upo.pairs import Batch
from upo.runs.assembly import build_learner

# the penalty's weight phi / (p (1 - p)) is held fixed in the network that it weighs
FIXED_WEIGHT = {("cbpl", "decomposed")}


def players(name, scale):
    """Every learner in playing order, the networks with random parameters of a given scale."""
    config, estimator, sampler = built(name)
    roughened(estimator, scale=scale)
    stages = [plan for plan in config.estimator.stages.values() if plan is not None]
    order = [key for plan in stages for key in [*plan.get("first", []), *plan.learners]]
    learners = {key: build_learner(config.estimator.learners[key], estimator) for key in order}
    for learner in learners.values():
        learner.on_stage_start()
    return estimator, learners, sampler


def play(learner, batch, sampler):
    """One update as at the start of an epoch, on a batch that remembers nothing."""
    for part in batch.parts:
        part.memo.clear()
    learner.on_epoch_start(0, sampler)
    return learner.update(batch)


def descended(learner, batch, sampler, monkeypatch):
    """The first loss that the learner descends, summed over replicas; no step is taken."""
    losses = []
    with monkeypatch.context() as patch:
        patch.setattr(learner, "step", lambda loss, *_: losses.append(loss))
        play(learner, batch, sampler)
    return losses[0].sum()


def hold_constants(estimator, monkeypatch):
    """Keep bins, features and balancing weights as first seen: constants to every gradient."""
    bins, features = {}, {}
    index, represent = estimator.bins.index, estimator.features

    def first_index(p_hat):
        return bins.setdefault(p_hat.shape, index(p_hat))

    def first_features(role, pairs):
        # the pairs are kept too: a freed batch's id may come again
        return features.setdefault((role, id(pairs)), (represent(role, pairs), pairs))[0]

    if "balance" in estimator.networks:
        omega, balance = {}, estimator.networks["balance"]
        weigh = balance.weight

        def first_weight(holder, pairs):
            return omega.setdefault(id(pairs), (weigh(holder, pairs), pairs))[0]

        monkeypatch.setattr(balance, "weight", first_weight)
    if "auxiliary" in estimator.networks:  # the prediction is a part of what divides its errors
        clipped, divide = {}, estimator.p_hat

        def first_p_hat(pairs):
            return clipped.setdefault(id(pairs), (divide(pairs), pairs))[0]

        monkeypatch.setattr(estimator, "p_hat", first_p_hat)
    if "tilted" in estimator.networks:
        tilted, columns = estimator.networks["tilted"], {}
        balanced = tilted.balanced

        def first_columns(holder, pairs):
            return columns.setdefault(id(pairs), (balanced(holder, pairs), pairs))[0]

        monkeypatch.setattr(tilted, "balanced", first_columns)
    monkeypatch.setattr(estimator.bins, "index", first_index)
    monkeypatch.setattr(estimator, "features", first_features)


@pytest.mark.parametrize("name", each())
def test_gradients_agree_with_finite_differences(name, float64, monkeypatch):
    estimator, learners, sampler = players(name, 0.3)
    batch = sampler.chunk(0, 1)[0]
    for learner in learners.values():  # players in closed form
        if not isinstance(learner, GradientLearner):
            play(learner, batch, sampler)
    hold_constants(estimator, monkeypatch)
    checked = 0
    for key, learner in learners.items():
        if not isinstance(learner, GradientLearner) or (name, key) in FIXED_WEIGHT:
            continue
        loss = descended(learner, batch, sampler, monkeypatch)
        grads = torch.autograd.grad(loss, learner.params, allow_unused=True, materialize_grads=True)
        g = torch.Generator().manual_seed(1)
        way = [torch.randn(p.shape, generator=g) for p in learner.params]
        slope = sum((d * x).sum() for d, x in zip(grads, way, strict=True))
        start = [p.detach().clone() for p in learner.params]
        values, h = [], 1e-6
        for side in (-h, h):
            for p, s, d in zip(learner.params, start, way, strict=True):
                p.data = s + side * d
            estimator.stepped(learner.network)
            values.append(descended(learner, batch, sampler, monkeypatch).detach())
        for p, s in zip(learner.params, start, strict=True):
            p.data = s
        estimator.stepped(learner.network)
        measured = (values[1] - values[0]) / (2 * h)
        # truncation h^2 and rounding 1e-16 / h, of losses and slopes of the order of one
        assert float(slope) == pytest.approx(float(measured), rel=1e-6, abs=1e-8), key
        checked += 1
    assert checked


@pytest.mark.parametrize("name", each())
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_certain_propensities_and_odd_batches_of_pairs_stay_finite(name, scale):
    # with a scale of 300 most logits lie beyond +-100, so propensities are 0 or 1 in float32
    estimator, learners, sampler = players(name, scale)
    space = sampler.space
    whole = sampler.chunk(0, 1)[0]
    logged = space.pairs(space.keys.expand(space.replicas, -1), len(space.keys))
    none = space.pairs(space.keys[:0].expand(space.replicas, -1), 1)  # the share of a late rank
    for pairs in (whole.pairs, logged, none):
        batch = Batch(whole.rows, pairs)
        for key, learner in learners.items():
            for what, value in play(learner, batch, sampler).items():
                assert torch.isfinite(value).all(), (key, what, pairs.users.shape)
    for role, network in estimator.networks.items():
        for p in network.parameters():
            assert torch.isfinite(p).all(), role
