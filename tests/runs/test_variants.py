"""Forms of public code, as named options of the rows they belong to."""

import pytest
import torch
from hydra.utils import instantiate
from small_estimators import built, configure, train

from upo.functional.targeting import squared_targeting_loss
from upo.learners.balancing import BalancePenalty, BalanceTerm
from upo.models.imputation import SquaredPseudoLabel

USES = [("tdr", "squared_step"), ("tdr_jl", "squared_step"), ("ips_v2", "joint_grad")]
USES += [("dr_v2", "joint_grad"), ("dr_jl", "public_dr"), ("upo_dr", "public_dr")]


@pytest.mark.parametrize(("name", "variant"), USES)
def test_a_variant_trains_and_changes_the_result(name, variant):
    plain, other = train(name), train(name, f"variant={variant}")
    assert torch.isfinite(other.metrics["auc"]).all()
    before, after = (run.estimator.networks["prediction"].state_dict() for run in (plain, other))
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_the_squared_step_is_one_step_of_its_own_stage():
    assert configure("tdr", "variant=squared_step").estimator.stages.squared_step.steps == 1
    assert train("tdr", "variant=squared_step").stages[-1].name == "squared_step"


def test_the_squared_step_by_hand():
    e, e_hat, p = torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([[0.25]])
    d, p_d = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.5, 1.0]])
    # H = 3 on the row, 1 and 0 on the pairs; epsilon = 3 (2 - 1) / 9 = 1 / 3
    expected = (4 / 0.25 - (1 + 1) ** 2 + (0.5 + 1 / 3) ** 2 + 1.0) / 2
    value = squared_targeting_loss(e, e_hat, p, d, p_d)
    torch.testing.assert_close(value, torch.tensor([expected]))


def test_jointly_the_balance_reaches_the_prediction_and_leaves_the_propensity():
    config, estimator, sampler = built("dr_v2", "variant=joint_grad")
    terms = config.estimator.learners.prediction.terms
    assert terms.bmse.balance.gamma == config.estimator.learners.balance.penalties.bmse.gamma
    term = instantiate(terms.bmse)
    assert isinstance(term, BalanceTerm)
    batch = sampler.chunk(0, 1)[0]
    value = term(estimator, batch)
    same = BalancePenalty(gamma=terms.bmse.balance.gamma)(
        estimator, batch.pairs, estimator.propensity(batch.pairs)
    )
    torch.testing.assert_close(value, same)
    mine = list(estimator.networks["prediction"].parameters())
    others = list(estimator.networks["propensity"].parameters())
    grads = torch.autograd.grad(value.sum(), mine + others, allow_unused=True)
    assert [g is None for g in grads] == [False] * len(mine) + [True] * len(others)


def test_the_joint_variant_needs_a_balanced_row():
    config = configure("ips", "variant=joint_grad")
    assert "_target_" not in config.estimator.learners.balance


def test_squared_pseudo_labels():
    form, f, g = SquaredPseudoLabel(), torch.tensor([0.3]), torch.tensor([-1.0])
    difference = torch.sigmoid(f) - torch.sigmoid(g)
    torch.testing.assert_close(form.imputed(f, g), difference**2)
    torch.testing.assert_close(form.error(f, torch.ones(1)), (1 - torch.sigmoid(f)) ** 2)
    run = train("dr_v2", "estimator.form._target_=upo.models.imputation.SquaredPseudoLabel")
    assert torch.isfinite(run.metrics["auc"]).all()
