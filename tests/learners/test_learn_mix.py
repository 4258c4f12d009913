"""DR-MSE's learned mix: its meta step, its limits, and that it trains."""

import pytest
import torch
from balancing_runs import adam, check_stack
from small_estimators import built, roughened, train
from torch.func import functional_call

from upo.errors import InputError
from upo.functional.imputation import omega_bias, omega_mrdr
from upo.functional.prediction import dr_loss
from upo.learners.mix import MixLookAhead
from upo.models.imputation import DirectError
from upo.models.mix import Mix

LEARNED = "imputation=mse_learned"


def parts(rate=1.0):
    _, estimator, sampler = built("dr_mse", LEARNED)
    roughened(estimator, scale=0.5)
    return estimator, sampler.chunk(0, 1)[0], MixLookAhead(estimator, optimizer=adam(), rate=rate)


def test_the_meta_gradient_is_that_of_a_step_with_its_graph(float64):
    rate = 30.0  # far enough that the slope ahead is another
    estimator, batch, learner = parts(rate)
    network, rows, density = estimator.networks["imputation"], batch.rows, estimator.space.density
    names, params = zip(*network.named_parameters(), strict=True)
    f_logit = estimator.logit("prediction", rows).detach()
    e, e_hat = estimator.form.regression(f_logit, rows.labels, network(rows.users, rows.items))
    weight = learner.mix.weight(estimator, rows)
    loss = density * (weight * (e - e_hat) ** 2).mean(-1)
    slopes = torch.autograd.grad(loss.sum(), params, create_graph=True)
    ahead = {n: p - rate * s for n, p, s in zip(names, params, slopes, strict=True)}
    e_hat_o, e_hat_d = (
        estimator.form.imputed(
            estimator.logit("prediction", part).detach(),
            functional_call(network, ahead, (part.users, part.items)),
        )
        for part in (rows, batch.pairs)
    )
    robust = dr_loss(
        estimator.errors(rows).detach(), e_hat_o, estimator.p_hat(rows), e_hat_d, density
    )
    expected = torch.autograd.grad(robust.sum(), learner.params)
    taken = []
    learner.step = taken.append
    torch.testing.assert_close(learner.update(batch)["robust"], robust.detach())
    found = torch.autograd.grad(taken[0].sum(), learner.params)
    for mine, theirs in zip(found, expected, strict=True):
        assert (theirs != 0).any()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("level", "omega"), [(-60.0, omega_mrdr), (60.0, omega_bias)])
def test_a_share_of_none_is_mrdr_and_of_all_is_dr_bias(level, omega, float64):
    estimator, batch, learner = parts()
    with torch.no_grad():
        learner.mix.layer.weight.zero_()
        learner.mix.layer.bias.fill_(level)
    p_hat = estimator.p_hat(batch.rows)
    torch.testing.assert_close(learner.mix.weight(estimator, batch.rows), omega(p_hat))


def test_both_weights_are_of_one_size_at_the_start():
    _, estimator, sampler = built("dr_mse", LEARNED)
    share = estimator.networks["mix"].share(estimator, sampler.chunk(0, 1)[0].rows)
    rho = torch.tensor(estimator.space.density)
    torch.testing.assert_close(share, torch.full_like(share, float(rho)))
    torch.testing.assert_close(rho * omega_bias(rho), (1 - rho) * omega_mrdr(rho))


def test_shares_are_learned_and_stay_inside():
    run = train("dr_mse", LEARNED, seeds=(3, 8))
    estimator = run.estimator
    rows = estimator.space.pairs(torch.arange(100).expand(2, -1), 100)
    share = estimator.networks["mix"].share(estimator, rows)
    assert ((share > 0) & (share < 1)).all()
    assert (share.std(-1) > 0).all()
    assert all(torch.isfinite(x).all() for x in run.metrics.values())


def test_a_stack_equals_its_parts():
    check_stack("dr_mse", LEARNED)


def test_wrong_settings_are_refused():
    estimator = parts()[0]
    with pytest.raises(InputError, match="rate of the mix must be positive"):
        MixLookAhead(estimator, optimizer=adam(), rate=0.0)
    with pytest.raises(InputError, match=r"start of the mix must lie in \(0, 1\)"):
        Mix(estimator.space, dim=2, start=1.0)
    estimator.form = DirectError()
    with pytest.raises(InputError, match="needs a pseudo-label, and DirectError has none"):
        MixLookAhead(estimator, optimizer=adam())
