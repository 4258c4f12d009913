import pytest
import torch
from small_estimators import built, check_row, everything, roughened, train

from upo.errors import InputError
from upo.learners.calibration import Fold
from upo.learners.prediction import DoublyRobust
from upo.learners.soft_ece import LookAheadECE, PseudoLabelECE
from upo.models.experts import CalibrationExperts
from upo.pairs import Batch
from upo.runs.assembly import build_learner

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


def test_experts_start_about_the_uncalibrated_logit_and_their_gate_has_a_gradient():
    config, estimator, sampler = built("dce_dr")
    logits = everything(estimator)
    for role in ("imputation", "propensity"):
        # five shifts from -0.1 to 0.1 in nearly equal shares
        torch.testing.assert_close(logits[role], logits[f"{role}_base"], rtol=0, atol=0.05)
    learner = build_learner(config.estimator.learners.calibration, estimator)
    learner.update(sampler.chunk(0, 1)[0])
    grad = estimator.networks["propensity"].gate.bias.grad
    assert (grad.abs().amax(-1) > 1e-5).all()  # of equal experts only rounding would be left


GUMBEL = [
    f"++estimator.networks.{role}.{key}={value}"
    for role in ("propensity", "imputation")
    for key, value in (("gate", "gumbel"), ("anneal_steps", "20"))
]


def test_the_gumbel_gate_trains_and_its_stack_equals_its_parts():
    stack = train("dce_dr", *GUMBEL, seeds=(3, 8))
    assert stack.estimator.networks["propensity"].steps.tolist() == [[10], [10]]
    alone = everything(train("dce_dr", *GUMBEL, seeds=(8,)).estimator)
    together = everything(stack.estimator)
    for role in alone:
        # float32 sums of different shapes; a temperature of 0.03 sharpens them
        torch.testing.assert_close(together[role][1], alone[role][0], rtol=1e-4, atol=1e-4)


def test_gumbel_noise_is_a_function_of_seed_step_and_pair():
    _, estimator, sampler = built("dce_dr", *GUMBEL)
    experts, pairs = estimator.networks["propensity"], sampler.chunk(0, 1)[0].pairs
    noise = experts.noise(pairs)
    assert noise.shape == (2, pairs.users.shape[1], 5)
    part = estimator.space.pairs(
        (pairs.users * estimator.space.n_items + pairs.items)[:, 7:20], pairs.total
    )
    assert torch.equal(experts.noise(part), noise[:, 7:20])  # whatever slice a device holds
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(estimator.networks["imputation"].noise(pairs), noise)
    experts.stepped()
    assert not torch.equal(experts.noise(pairs), noise)
    # 4800 draws: the mean is Euler's constant and the variance pi^2 / 6, to four standard errors
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.075)
    assert noise.var().item() == pytest.approx(1.6449, abs=0.25)


def test_a_cooled_gumbel_gate_picks_one_expert():
    _, estimator, sampler = built("dce_dr", *GUMBEL)
    experts = estimator.networks["propensity"]
    pairs = sampler.chunk(0, 1)[0].pairs
    for _ in range(25):
        experts.stepped()
    estimator.stepped("propensity")
    z = estimator.logit("propensity_base", pairs).unsqueeze(-1)
    shifted = estimator.logit("propensity", pairs).unsqueeze(-1) - z
    gap = (shifted - experts.shift).abs().amin(-1)
    # at a temperature of 0.001 the runner-up has a share in few pairs
    assert (gap < 1e-4).float().mean() > 0.97
    picked = (shifted - experts.shift).abs().argmin(-1)
    # noise decides, as the softmax that it is added to lies in (0, 1)
    assert torch.bincount(picked.flatten(), minlength=5).min() > 0.1 * picked.numel()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"gate": "hard"}, "gate must be"),
        ({"temperature": 0.0}, "must be positive"),
        ({"gate": "gumbel", "final_temperature": 0.0}, "must be positive"),
        ({"anneal_steps": 0}, "anneal_steps"),
        ({"experts": 0}, "experts must be"),
    ],
)
def test_wrong_experts_say_so(bad, message):
    _, estimator, _ = built("dce_dr")
    with pytest.raises(InputError, match=message):
        CalibrationExperts(estimator.space.sizes, source="propensity_base", dim=16, **bad)


def test_the_fold_is_a_share_of_the_pairs_that_differs_by_seed():
    _, _, sampler = built("dce_dr")
    pairs = sampler.chunk(0, 1)[0].pairs
    held = Fold(share=0.4).holds(pairs)
    # three standard errors of 480 draws
    torch.testing.assert_close(held.mean(-1), torch.full((2,), 0.4), rtol=0, atol=0.07)
    assert not torch.equal(held[0], held[1])
    assert torch.equal(held, Fold(share=0.4).holds(sampler.chunk(5, 1)[0].pairs))
    with pytest.raises(InputError, match="must lie in"):
        Fold(share=1.0)


def test_the_propensity_does_not_see_the_fold():
    config, estimator, sampler = built("dce_dr")
    roughened(estimator)
    pairs = sampler.chunk(0, 1)[0].pairs
    logit = estimator.logit("propensity_base", pairs)
    learner = build_learner(config.estimator.learners.propensity, estimator)
    (slope,) = torch.autograd.grad(learner.fit(pairs).sum(), logit)
    held = learner.fold.holds(pairs).bool()
    assert not slope[held].any()
    # elsewhere 0 only where the propensity is as sure as float32 can be
    unsure = (torch.sigmoid(logit) - pairs.o).abs() > 1e-6
    assert slope[~held & unsure].abs().min() > 0
    assert (~held & unsure).float().mean() > 0.5


def test_the_imputation_does_not_see_the_fold():
    config, estimator, sampler = built("dce_dr")
    learner = build_learner(config.estimator.learners.imputation, estimator)
    rows = sampler.chunk(0, 1)[0].rows
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
    learner = build_learner(config.estimator.learners.calibration, estimator)
    learner.fold.share = 0.9
    every_row = type(sampler)(space, "all", space.n_train, 0).chunk(0, 1)[0].rows
    batch = Batch(every_row, sampler.chunk(0, 1)[0].pairs)

    def fit():
        p = torch.sigmoid(estimator.logit("propensity", batch.pairs)).detach()
        held = learner.fold.holds(batch.pairs)
        return (held * (p - batch.pairs.o)).sum(-1).abs() / held.sum(-1), p.mean(-1)

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
    learner = build_learner(config.estimator.learners.imputation_calibration, estimator)
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
            learner = build_learner(config.estimator.learners[role], estimator)
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
    (penalty,) = build_learner(config.estimator.learners.propensity_1, estimator).penalties.values()
    pairs = sampler.chunk(0, 1)[0].pairs
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
    player = build_learner(config.estimator.learners.propensity, estimator)
    losses = [player.update(batch)["loss"] for batch in sampler.chunk(0, 20)]
    assert (losses[-1] < losses[0]).all()
    assert torch.equal(estimator.networks["propensity_1"].intercept, member)
    assert player.params[0].shape == (2, 2)


PUBLIC = [
    f"estimator.learners.{name}.penalties.calibration.dece=public"
    for name in ("propensity_1", "imputation_1")
]


def test_cali_mr_trains_with_the_public_dece():
    result = train("cali_mr", *PUBLIC)
    for stage in result.stages:
        for key, values in stage.history.logs.items():
            assert torch.isfinite(torch.stack(values)).all(), key


def test_the_public_dece_of_propensities_is_n_over_m_times_the_error_of_rates():
    _, estimator, sampler = built("cali_mr")
    roughened(estimator, scale=0.5)
    pairs = sampler.chunk(0, 1)[0].pairs
    mean, public = (LookAheadECE(strength=1.0, num_bins=8, dece=d) for d in ("mean", "public"))
    ours, theirs = (term(estimator, pairs, torch.zeros(1)) for term in (mean, public))
    torch.testing.assert_close(theirs, ours * pairs.users.shape[1] / 8, rtol=1e-4, atol=0)


def test_the_public_dece_of_pseudo_labels_compares_errors_per_weight_with_labels():
    _, estimator, sampler = built("cali_mr")
    roughened(estimator, scale=0.5)
    rows = sampler.chunk(0, 1)[0].rows
    term = PseudoLabelECE(strength=2.0, num_bins=1, dece="public")(estimator, rows)
    errors, y = estimator.errors(rows), torch.sigmoid(estimator.logit("imputation", rows))
    per_weight = errors.sum(-1) / (1 / estimator.p_hat(rows)).sum(-1)
    torch.testing.assert_close(term, 2.0 * (per_weight - y.sum(-1)).abs(), rtol=1e-4, atol=0)
    prediction = list(estimator.networks["prediction"].parameters())
    assert torch.autograd.grad(term.sum(), prediction, allow_unused=True) == (None, None)
    with pytest.raises(InputError, match="dece must be"):
        PseudoLabelECE(strength=1.0, dece="sum")
