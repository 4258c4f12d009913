"""What a run is worth: the constant beside the model, and what is left of its weights."""

import math

import pytest
import torch
from worlds import make_estimator, make_space

from upo.evaluation import mar
from upo.evaluation.constant import compare, constant_columns, training_mean
from upo.evaluation.mar import MarSet, heldout_blocks
from upo.evaluation.overlap import weight_columns
from upo.evaluation.protocols import Holdout, MarHoldout, TestSelected
from upo.metrics import LogLoss, MeanSquaredError


class Sample(MarSet):
    """Test rows without a dataset."""

    def __init__(self, users, items, labels):
        torch.nn.Module.__init__(self)
        self.users, self.items, self.labels, self.k = users, items, labels, 5
        self.ratings = labels


def sample(n=57):
    g = torch.Generator().manual_seed(2)
    users, items = torch.randint(0, 12, (n,), generator=g), torch.randint(0, 17, (n,), generator=g)
    return Sample(users, items, torch.bernoulli(torch.full((n,), 0.3), generator=g))


@pytest.fixture
def estimator():
    """Networks far from their start, so that rows differ."""
    made = make_estimator(make_space(holdout=0.25))
    g = torch.Generator().manual_seed(1)
    for parameter in made.networks.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    return made.eval()


def test_the_constant_is_the_mean_label_of_each_replicas_training_rows(estimator):
    space = estimator.space
    rows = torch.arange(space.n_observed).expand(space.replicas, -1)
    inside = space.in_train(rows)
    for r, mean in enumerate(training_mean(space).tolist()):
        assert mean == pytest.approx(float(space.labels[inside[r]].double().mean()), abs=1e-15)
    assert len(set(training_mean(space).tolist())) > 1, "replicas hold out other rows"


@pytest.mark.parametrize("masked", [False, True])
def test_columns_of_the_constant_are_the_metrics_of_a_constant_prediction(estimator, masked):
    test, space = sample(), estimator.space
    include = None
    if masked:
        include = torch.rand(3, len(test), generator=torch.Generator().manual_seed(4)) < 0.6
    found = constant_columns(test, space, include)
    f = training_mean(space)[:, None].expand(-1, len(test))
    weight = None if include is None else include.double()
    for name, metric in (("constant_log_loss", LogLoss()), ("constant_mse", MeanSquaredError())):
        metric.update(f, test.labels, weight)
        torch.testing.assert_close(found[name], metric.compute(), rtol=1e-14, atol=0)


def row_by_row(f, labels, constant_label):
    """Mean losses, and the standard error of the paired difference, as a text book has them."""
    loss = torch.nn.functional.binary_cross_entropy
    c = torch.full_like(f, constant_label)
    model, plain = (loss(p, labels.double(), reduction="none") for p in (f, c))
    gap = plain - model
    return float(model.mean()), float(plain.mean()), float(gap.std() / math.sqrt(len(gap)))


def test_the_comparison_is_that_of_a_loop_over_held_out_rows(estimator):
    found = compare(lambda: Holdout().validation_rows(estimator), estimator.space)
    means = training_mean(estimator.space)
    for pairs, labels in heldout_blocks(estimator):
        f = torch.sigmoid(estimator.logit("prediction", pairs).double()).detach()
        for r in range(3):
            expected = row_by_row(f[r], labels[r], float(means[r]))
            got = [float(x[r]) for x in found[:3]]
            assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("protocol", [MarHoldout(share=0.4), TestSelected()])
def test_other_protocols_compare_on_the_rows_they_select_by(estimator, protocol):
    test = sample()
    protocol.use(test)
    found = compare(lambda: protocol.validation_rows(estimator), estimator.space)
    tested = protocol.tested(estimator)
    means = training_mean(estimator.space)
    (pairs, _), *others = test.blocks(estimator.space)
    assert not others
    f = torch.sigmoid(estimator.logit("prediction", pairs).double()).detach()
    for r in range(3):
        rows = slice(None) if tested is None else ~tested[r]
        expected = row_by_row(f[r, rows], test.labels[rows], float(means[r]))
        assert [float(x[r]) for x in found[:3]] == pytest.approx(expected, rel=1e-12)


def test_small_blocks_change_nothing(estimator, monkeypatch):
    space = estimator.space

    def found():
        comparison = compare(lambda: Holdout().validation_rows(estimator), space)
        return comparison.columns | weight_columns(estimator)

    whole = found()
    monkeypatch.setattr(mar, "BLOCK", 7 * space.replicas)
    assert space.n_held > 14, "more than two blocks"
    for name, value in found().items():
        # float32 networks, whose sums depend on the shape of a block, in front of float64 sums
        torch.testing.assert_close(value, whole[name], rtol=1e-6, atol=0, msg=name)


def test_one_validation_row_tells_nothing(estimator):
    f = torch.full((3, 1), 0.3, dtype=torch.float64)
    found = compare(lambda: [(f, torch.ones(3, 1), None)], estimator.space)
    assert torch.isnan(found.error).all()
    assert torch.isfinite(found.model).all()


def test_weights_of_the_log_are_counted_row_by_row(estimator):
    space = estimator.space
    pairs = space.pairs_at(space.keys.expand(3, -1), space.n_observed)
    learned = torch.sigmoid(estimator.logit("propensity", pairs)).double().detach()
    w = 1 / learned.clamp(0.1, 1 - 1e-6)
    found = weight_columns(estimator)
    below = (learned < 0.1).double().mean(-1)
    assert 0 < float(below.min()) < float(below.max()) < 1, "the case must tell"
    torch.testing.assert_close(found["clip_share"], below, rtol=0, atol=1e-15)
    size = w.sum(-1) ** 2 / (w.square().sum(-1) * space.n_observed)
    # float32 propensities in front of float64 sums
    torch.testing.assert_close(found["effective_sample_size"], size, rtol=1e-6, atol=0)


def test_equal_weights_have_the_whole_sample(estimator):
    for parameter in estimator.networks["propensity"].parameters():
        parameter.data.zero_()
    found = weight_columns(estimator)
    assert found["clip_share"].tolist() == [0, 0, 0]
    torch.testing.assert_close(found["effective_sample_size"], torch.ones(3).double())
    estimator.weighting.p_min = 0.9  # above every propensity
    assert weight_columns(estimator)["clip_share"].tolist() == [1, 1, 1]
