import pytest
import torch
from hydra.utils import instantiate
from small_estimators import built, check_row, everything, roughened

from upo.errors import InputError
from upo.functional.errors import cross_entropy
from upo.learners.calibration import Fold
from upo.learners.prediction import DoublyRobust

# Lightning's own use of a torch name that a newer torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.mark.parametrize("name", ["dce_dr", "dce_tdr"])
def test_a_row_trains_and_its_stack_equals_its_parts(name):
    check_row(name)


def test_one_expert_at_its_start_is_the_uncalibrated_parent():
    one = ("estimator.networks.imputation.experts=1", "estimator.networks.propensity.experts=1")
    _, estimator, sampler = built("dce_dr", *one)
    logits = everything(estimator)
    for role in ("imputation", "propensity"):
        torch.testing.assert_close(logits[role], logits[f"{role}_base"])
    batch = sampler.chunk(0, 1)[0]
    loss = DoublyRobust()(estimator, batch)
    for role in ("imputation", "propensity"):
        estimator.networks[role] = estimator.networks[f"{role}_base"]
    torch.testing.assert_close(loss, DoublyRobust()(estimator, sampler.chunk(0, 1)[0]))


def test_the_fold_is_a_share_of_the_pairs_that_differs_by_seed():
    _, _, sampler = built("dce_dr")
    pairs = sampler.chunk(0, 1)[0].d
    held = Fold(share=0.4).holds(pairs)
    # three standard errors of 480 draws
    torch.testing.assert_close(held.mean(-1), torch.full((2,), 0.4), rtol=0, atol=0.07)
    assert not torch.equal(held[0], held[1])
    assert torch.equal(held, Fold(share=0.4).holds(sampler.chunk(5, 1)[0].d))
    with pytest.raises(InputError, match="must lie in"):
        Fold(share=1.0)


def test_the_propensity_does_not_see_the_fold():
    config, estimator, sampler = built("dce_dr")
    roughened(estimator)
    pairs = sampler.chunk(0, 1)[0].d
    logit = estimator.logit("propensity_base", pairs)
    (penalty,) = instantiate(config.estimator.learners.propensity)(estimator).penalties.values()
    total = cross_entropy(logit, pairs.o).mean(-1) + penalty(estimator, pairs, torch.sigmoid(logit))
    (slope,) = torch.autograd.grad(total.sum(), logit)
    held = penalty.fold.holds(pairs).bool()
    # a difference of two equal float32 derivatives
    assert slope[held].abs().max() < 1e-9
    assert slope[~held].abs().min() > 0


def test_the_imputation_does_not_see_the_fold():
    config, estimator, sampler = built("dce_dr")
    learner = instantiate(config.estimator.learners.imputation)(estimator)
    rows = sampler.chunk(0, 1)[0].o
    held = learner.fold.holds(rows).bool()
    assert held.any()
    assert torch.equal(learner.weight(rows)[held], torch.zeros(int(held.sum())))
    assert torch.equal(learner.weight(rows)[~held], 1 / estimator.p_hat(rows)[~held])


def test_calibration_improves_the_fit_and_keeps_the_true_rate():
    config, estimator, sampler = built(
        "dce_dr", "estimator.learners.calibration.optimizer.weight_decay=0"
    )
    estimator.networks["propensity_base"].intercept.data.fill_(-4.0)  # far too low
    estimator.stepped("propensity_base")
    space = estimator.space
    learner = instantiate(config.estimator.learners.calibration)(estimator)
    learner.fold.share = 0.9
    batch = sampler.chunk(0, 1)[0]
    batch.observed = type(sampler)(space, "all", space.n_train, 0).chunk(0, 1)[0].o

    def fit():
        p = torch.sigmoid(estimator.logit("propensity", batch.d)).detach()
        held = learner.fold.holds(batch.d)
        return (held * (p - batch.d.o)).sum(-1).abs() / held.sum(-1), p.mean(-1)

    before, _ = fit()
    losses = torch.stack([learner.update(batch)["loss"] for _ in range(150)])
    after, mean = fit()
    assert (losses[-1] < losses[0]).all()
    assert (after < 0.2 * before).all()
    # 1 in 10 pairs is not fitted on, and of the training rows a tenth is held out
    torch.testing.assert_close(mean, torch.full((2,), space.density), rtol=0.15, atol=0)


def test_label_calibration_descends_on_the_fold_before_each_epoch():
    config, estimator, sampler = built("dce_dr")
    roughened(estimator)
    learner = instantiate(config.estimator.learners.imputation_calibration)(estimator)
    base = [p.clone() for p in estimator.networks["imputation_base"].parameters()]
    learner.on_epoch_start(0, sampler)
    first = learner.loss
    for epoch in range(1, 6):
        learner.on_epoch_start(epoch, sampler)
    assert (learner.loss < first).all()
    assert torch.equal(learner.update(None)["loss"], learner.loss)
    for p, before in zip(estimator.networks["imputation_base"].parameters(), base, strict=True):
        assert torch.equal(p, before)


def test_cali_mr_trains_and_its_stack_equals_its_parts():
    check_row("cali_mr")


def test_without_penalties_the_losses_are_those_of_mr():
    off = [
        f"estimator.learners.{name}.penalties.calibration.strength=0"
        for name in ("propensity_1", "imputation_1")
    ]
    cali, mr = built("cali_mr", *off), built("mr")
    for role in ("imputation_1", "propensity_1"):
        losses, weights = [], []
        for config, estimator, sampler in (cali, mr):
            learner = instantiate(config.estimator.learners[role])(estimator)
            losses.append(learner.update(sampler.chunk(0, 1)[0])["loss"])
            weights.append([p.detach().clone() for p in learner.params])
        assert torch.equal(*losses)
        for ours, theirs in zip(*weights, strict=True):
            torch.testing.assert_close(ours, theirs)
    # an untrained mixture is the plain mean that MR takes
    ours, theirs = everything(cali[1]), everything(mr[1])
    torch.testing.assert_close(ours["propensity"], theirs["propensity"])


def test_one_member_mixtures_are_their_member():
    single = [
        "estimator.networks.propensity.sources=[propensity_1]",
        "estimator.networks.imputation.sources=[imputation_1]",
    ]
    _, estimator, _ = built("cali_mr", *single)
    logits = everything(roughened(estimator))
    for role in ("propensity", "imputation"):
        torch.testing.assert_close(logits[role], logits[f"{role}_1"], rtol=1e-4, atol=1e-5)


def first_parameter(network):
    return next(iter(network.parameters()))


def test_the_looked_ahead_penalty_reaches_every_member_but_not_the_mixture():
    config, estimator, sampler = built("cali_mr")
    roughened(estimator, scale=0.5)
    (penalty,) = instantiate(config.estimator.learners.propensity_1)(estimator).penalties.values()
    pairs = sampler.chunk(0, 1)[0].d
    loss = penalty(estimator, pairs, torch.zeros(1)).sum()
    networks = estimator.networks
    for role in ("propensity_1", "propensity_2"):
        slope = torch.autograd.grad(loss, first_parameter(networks[role]), retain_graph=True)
        assert slope[0].abs().max() > 0
    alpha = torch.autograd.grad(loss, networks["propensity"].alpha, allow_unused=True)
    assert alpha == (None,)


def test_the_mixture_is_learned_on_its_own():
    config, estimator, sampler = built("cali_mr")
    roughened(estimator, scale=0.5)
    member = estimator.networks["propensity_1"].intercept.detach().clone()
    player = instantiate(config.estimator.learners.propensity)(estimator)
    losses = [player.update(batch)["loss"] for batch in sampler.chunk(0, 20)]
    assert (losses[-1] < losses[0]).all()
    assert torch.equal(estimator.networks["propensity_1"].intercept, member)
    assert player.params[0].shape == (2, 2)
