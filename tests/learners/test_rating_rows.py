"""Rows that predict ratings: a stack equals its seeds, and diagnostics are of true ratings."""

import pytest
import torch
from small_estimators import everything, train


@pytest.mark.parametrize("name", ["snips", "dr", "upo_dr"])
def test_a_stack_equals_each_seed_alone(name):
    stack = train(name, "target=rating", seeds=(3, 8))
    for stage in stack.stages:
        for key, values in stage.history.logs.items():
            assert torch.isfinite(torch.stack(values)).all(), key
    assert (stack.metrics["rmse"] < stack.metrics["constant_rmse"]).all()
    together = everything(stack.estimator)
    alone = everything(train(name, "target=rating", seeds=(8,)).estimator)
    for role, output in alone.items():
        # float32 sums of different shapes, over at most 35 steps
        torch.testing.assert_close(together[role][1], output[0], rtol=1e-5, atol=1e-5)


def test_errors_of_a_simulated_world_are_those_of_its_true_ratings():
    """The DR bias of IPS is the mean of (p / p_hat - 1) e over D, with e in squares of ratings."""
    result = train("ips", "target=rating")
    estimator = result.estimator
    space = estimator.space
    pairs = space.pairs(torch.arange(space.n_pairs)[None], space.n_pairs)
    truth = space.truth
    with torch.no_grad():
        said = space.target.score(estimator.logit("prediction", pairs).double())
        p_hat = estimator.p_hat(pairs).double()
    e = (said - truth.rating(pairs.users, pairs.items)) ** 2
    p = truth.propensity(pairs.users, pairs.items)
    expected = ((p / p_hat - 1) * e).mean(-1).abs()
    torch.testing.assert_close(result.metrics["dr_bias"], expected, rtol=1e-4, atol=1e-6)
