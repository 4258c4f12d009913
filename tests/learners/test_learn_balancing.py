import pytest
import torch
from balancing_runs import adam, check_stack, run_steps, state
from small_estimators import built, roughened

from upo.errors import InputError
from upo.functional.balancing import joint_squared_error
from upo.functional.pointwise import cross_entropy
from upo.learners.balancing import (
    BalancePenalty,
    InverseErrorPenalty,
    JointPenalty,
    JointTerm,
    Strength,
    known_gap,
)
from upo.learners.propensity import PropensityLearner

ROWS = ["ips_v2", "dr_v2"]
PARENTS = {"ips_v2": "ips", "dr_v2": "dr_jl"}


@pytest.mark.slow  # tests/runs/test_configs.py compares whole runs of these rows
@pytest.mark.parametrize("name", ROWS)
def test_stack_equals_its_parts(name):
    check_stack(name)


@pytest.mark.parametrize("name", ROWS)
def test_without_its_terms_it_is_its_parent(name):
    plain = [
        "estimator.stages.debias.first=[]",
        "estimator.learners.prediction.terms.joint.alpha=0",
    ]
    mine = state(run_steps(name, *plain, stages=["debias"]))
    size = "estimator.stages.debias.pair_batch=2048"
    theirs = state(run_steps(PARENTS[name], size, stages=["debias"]))
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-7)


def test_without_penalties_the_propensity_step_is_plain():
    after = []
    for penalties in (
        {},
        {
            "joint": JointPenalty(loss=joint_squared_error, alpha=0.0),
            "bmse": BalancePenalty(gamma=0.0),
            "inverse": InverseErrorPenalty(beta=0.0),
        },
    ):
        _, estimator, sampler = built("ips_v2")
        learner = PropensityLearner(
            estimator, optimizer=adam(), loss=cross_entropy, penalties=penalties
        )
        for batch in sampler.chunk(0, 3):
            learner.update(batch)
        after.append(state(estimator))
    for key, value in after[0].items():
        torch.testing.assert_close(after[1][key], value, rtol=0, atol=0)


def test_each_player_leaves_the_other_alone():
    _, estimator, sampler = built("dr_v2")
    batch = sampler.chunk(0, 1)[0]
    p_hat = estimator.propensity(batch.pairs)
    penalties = [
        JointPenalty(loss=joint_squared_error),
        BalancePenalty(),
        InverseErrorPenalty(),
    ]
    total = sum(penalty(estimator, batch.pairs, p_hat) for penalty in penalties).sum()
    others = [*estimator.networks["prediction"].parameters()]
    others += estimator.networks["imputation"].parameters()
    mine = list(estimator.networks["propensity"].parameters())
    grads = torch.autograd.grad(total, mine + others, allow_unused=True)
    assert all(g is not None for g in grads[: len(mine)])
    assert all(g is None for g in grads[len(mine) :])
    term = JointTerm(loss=joint_squared_error)(estimator, batch).sum()
    networks = [*estimator.networks["prediction"].parameters(), *mine]
    grads = torch.autograd.grad(term, networks, allow_unused=True)
    assert [g is None for g in grads] == [False] * (len(networks) - len(mine)) + [True] * len(mine)


def test_held_out_rows_are_unknown_to_the_joint_term():
    _, estimator, sampler = built("ips_v2")
    pairs = sampler.chunk(0, 1)[0].pairs
    held = pairs.observed & ~pairs.trainable
    assert held.any()
    roughened(estimator)
    value = joint_squared_error(
        estimator.logit("propensity", pairs), estimator.logit("prediction", pairs), pairs.labels
    )
    expected = torch.where(held, 0.0, value).mean(-1)
    term = JointTerm(loss=joint_squared_error)(estimator, sampler.chunk(0, 1)[0])
    torch.testing.assert_close(term, expected)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_penalties_are_finite_at_propensities_0_and_1(logit):
    _, estimator, sampler = built("dr_v2")
    for p in estimator.networks["propensity"].parameters():
        p.data.zero_()
    estimator.networks["propensity"].intercept.data.fill_(logit)
    batch = sampler.chunk(0, 1)[0]
    p_hat = estimator.propensity(batch.pairs)
    params = list(estimator.networks["propensity"].parameters())
    for penalty in (
        JointPenalty(loss=joint_squared_error),
        BalancePenalty(),
        InverseErrorPenalty(),
    ):
        value = penalty(estimator, batch.pairs, p_hat)
        grads = torch.autograd.grad(value.sum(), params, retain_graph=True, allow_unused=True)
        assert torch.isfinite(value).all()
        assert all(torch.isfinite(g).all() for g in grads if g is not None)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", ROWS)
def test_labels_of_one_class_leave_every_step_finite(name, label):
    run_steps(name, steps=5, label=label)


def test_gap_is_zero_where_no_training_row_is():
    _, estimator, sampler = built("dr_v2")
    pairs = sampler.chunk(0, 1)[0].pairs
    gap = known_gap(estimator, pairs)
    assert not gap.requires_grad
    assert (gap[~pairs.trainable] == 0).all()
    expected = (estimator.errors(pairs) - estimator.imputed(pairs))[pairs.trainable]
    torch.testing.assert_close(gap[pairs.trainable], expected.detach(), rtol=0, atol=0)


def test_strength_may_differ_between_replicas():
    scaled = Strength([1.0, 3.0], "alpha")(torch.ones(2))
    torch.testing.assert_close(scaled, torch.tensor([1.0, 3.0]))
    with pytest.raises(InputError, match="alpha must be at least 0"):
        Strength(-1.0, "alpha")


def test_balance_needs_a_clip_inside_the_unit_interval():
    with pytest.raises(InputError, match="p_min"):
        BalancePenalty(p_min=0.0)
