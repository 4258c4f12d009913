"""AutoDebias: what a few ratings at random teach."""

import pytest
import torch
from balancing_runs import adam
from small_estimators import built, configure, roughened
from torch.func import functional_call

from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.learners.ahead import along
from upo.learners.debiasing import AutoDebiased, LookAhead
from upo.learners.prediction import Naive
from upo.pairs import BatchSampler
from upo.pairs.uniform import user_order
from upo.runs.experiment import Experiment


def parts(scale=0.5):
    _, estimator, sampler = built("autodebias")
    roughened(estimator, scale=scale)
    objective = AutoDebiased(strength=0.4)
    learner = LookAhead(estimator, optimizer=adam(), objective=objective, rate=0.7, lent=0.3)
    learner.on_epoch_start(0, sampler)
    return estimator, sampler.chunk(0, 1)[0], learner


def test_the_meta_gradient_is_that_of_a_step_with_its_graph(float64):
    estimator, batch, learner = parts()
    network, phi = estimator.networks["prediction"], learner.parameters
    names, params = zip(*network.named_parameters(), strict=True)
    rows, pairs = batch.rows, batch.pairs
    weight, label = phi.weight(rows), phi.label(pairs)
    e = estimator.errors(rows)
    loss = (weight * e).sum(-1) / weight.sum(-1)
    loss = loss + 0.4 * cross_entropy(estimator.logit("prediction", pairs), label).mean(-1)
    slopes = torch.autograd.grad(loss.sum(), params, create_graph=True)
    ahead = {n: p - 0.7 * s for n, p, s in zip(names, params, slopes, strict=True)}
    lent = estimator.space.uniform.lent(estimator.space.seeds, 0.3)
    logit = functional_call(network, ahead, (lent.users, lent.items))
    uniform = (lent.weight * cross_entropy(logit, lent.labels)).sum(-1) / lent.weight.sum(-1)
    expected = torch.autograd.grad(uniform.sum(), learner.params)
    taken = []
    learner.step = taken.append
    found_uniform = learner.update(batch)["uniform"]
    found = torch.autograd.grad(taken[0].sum(), learner.params)
    torch.testing.assert_close(found_uniform, uniform.detach())
    for mine, theirs in zip(found, expected, strict=True):
        assert (theirs != 0).any()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-15)


def test_logits_move_along_a_way_as_by_differences(float64):
    estimator, batch, _ = parts()
    params = list(estimator.networks["prediction"].parameters())
    g = torch.Generator().manual_seed(0)
    way = [torch.randn(p.shape, generator=g) for p in params]
    found = along(estimator.logit("prediction", batch.rows), params, way)
    sides = []
    for h in (1e-6, -1e-6):
        with torch.no_grad():
            for p, d in zip(params, way, strict=True):
                p += h * d
            sides.append(estimator.networks["prediction"](batch.rows.users, batch.rows.items))
            for p, d in zip(params, way, strict=True):
                p -= h * d
    torch.testing.assert_close(found, (sides[0] - sides[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_weights_of_one_and_no_pseudo_labels_are_naive():
    _, estimator, sampler = built("autodebias")
    batch = sampler.chunk(0, 1)[0]
    mine = AutoDebiased(strength=0.0)(estimator, batch)
    torch.testing.assert_close(mine, Naive()(estimator, batch))


def test_looking_ahead_lowers_the_uniform_loss_and_leaves_the_prediction():
    _, estimator, _ = built("autodebias")
    roughened(estimator, scale=0.3)
    space = estimator.space
    batch = BatchSampler(space, "all", space.n_train, space.n_pairs).chunk(0, 1)[0]
    before = [p.clone() for p in estimator.networks["prediction"].parameters()]
    learner = LookAhead(
        estimator, optimizer=adam(0.5), objective=AutoDebiased(), rate=5.0, lent=0.3
    )
    learner.on_epoch_start(0, None)
    losses = [learner.update(batch)["uniform"] for _ in range(30)]
    assert (losses[-1] < losses[0] - 1e-3).all()
    after = estimator.networks["prediction"].parameters()
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_who_teaches_neither_selects_nor_tests():
    experiment = Experiment(configure("autodebias", "seeds=2"), progress=False)
    mar, estimator, *_ = experiment._prepared(0.0)
    protocol, seeds = experiment.protocol, estimator.space.seeds
    place, count = user_order(mar.users, seeds)
    lent = place < round(protocol.lent * count)
    selecting, tested = protocol._selecting(estimator), protocol.tested(estimator)
    assert all(rows.any() for rows in (lent, selecting, tested))
    assert torch.equal(lent.int() + selecting.int() + tested.int(), torch.ones_like(place).int())
    rows = estimator.space.uniform.lent(seeds, protocol.lent)
    for r in range(2):
        mine = rows.weight[r] > 0
        assert set(rows.users[r][mine].tolist()) == set(mar.users[lent[r]].tolist())
    plain = Experiment(configure("naive", "protocol=mar_holdout", "seeds=2"), progress=False)
    plain._prepared(0.0)
    assert torch.equal(plain.protocol.tested(estimator), tested)  # the same for every row


@pytest.mark.parametrize("protocol", ["holdout", "paper"])
def test_other_protocols_lend_nothing(protocol):
    config = configure("autodebias", f"protocol={protocol}")
    with pytest.raises(InputError, match="add protocol=mar_holdout"):
        Experiment(config, progress=False)


def test_options_are_checked():
    with pytest.raises(InputError, match="strength of AutoDebias"):
        AutoDebiased(strength=-1.0)
    _, estimator, _ = built("autodebias")
    with pytest.raises(InputError, match="rate of AutoDebias"):
        LookAhead(estimator, optimizer=adam(), objective=AutoDebiased(), rate=0.0)
    with pytest.raises(InputError, match=r"estimator\.lent"):
        Experiment(configure("autodebias", "estimator.lent=0.2"), progress=False)
    estimator.space.uniform = None
    with pytest.raises(InputError, match="the dataset has none"):
        LookAhead(estimator, optimizer=adam(), objective=AutoDebiased())
