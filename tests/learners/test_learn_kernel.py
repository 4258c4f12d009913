import pytest
import torch
from balancing_runs import adam, check_stack, run_steps, state
from small_estimators import built, roughened

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.imputation import omega_jl
from upo.functional.kernels import balance_gap, balance_noise, expansion_loss
from upo.functional.prediction import dr_loss
from upo.learners.imputation import ImputationLearner
from upo.learners.kernel import AnchorLearner, KernelWeightLearner, WorstCaseWeightLearner
from upo.learners.prediction import DoublyRobust
from upo.models.kernel_weight import AdaptiveAnchors, KernelAnchors, KernelWeight
from upo.pairs import BatchSampler

ROWS = ["kbips", "akbips", "kbdr", "akbdr", "wkb_ips", "wkb_dr"]
PARENTS = {"kbips": "ips", "kbdr": "dr_jl", "wkb_ips": "ips", "wkb_dr": "dr_jl"}
FEW = "estimator.networks.anchors.n_anchors=16"


@pytest.mark.slow  # tests/runs/test_configs.py compares whole runs of these rows
@pytest.mark.parametrize("name", ROWS)
def test_stack_equals_its_parts(name):
    check_stack(name, FEW)


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_with_inverse_propensities_as_weights_it_is_its_parent(name):
    mine = run_steps(
        name,
        FEW,
        "estimator.stages.debias.first=[]",
        "estimator.networks.weight.init_std=0",
        stages=["propensity", "debias"],
    )
    clip = ["estimator.weighting.p_min=0.2", "estimator.weighting.relative=true"]
    size = "estimator.stages.debias.pair_batch=640"
    theirs = state(run_steps(PARENTS[name], *clip, size, stages=["propensity", "debias"]))
    for key, value in theirs.items():
        torch.testing.assert_close(state(mine)[key], value, rtol=0, atol=1e-6)


def test_dr_under_kernel_weights_is_the_weighted_form():
    _, estimator, sampler = built("kbdr", FEW)
    roughened(estimator, scale=0.3)
    batch = sampler.chunk(0, 1)[0]
    w = estimator.space.density / estimator.p_hat(batch.rows)
    e, e_hat = estimator.errors(batch.rows), estimator.imputed(batch.rows)
    expected = estimator.imputed(batch.pairs).mean(-1) + (w * (e - e_hat)).mean(-1)
    loss = DoublyRobust()(estimator, batch)
    torch.testing.assert_close(loss, expected)
    same = dr_loss(
        e, e_hat, estimator.p_hat(batch.rows), estimator.imputed(batch.pairs), w.shape[-1]
    )
    assert not torch.allclose(loss, same)  # |O| / |D| is already in w
    learner = ImputationLearner(estimator, optimizer=adam(), omega=omega_jl)
    fit = (w * (e - e_hat) ** 2).mean(-1).detach()
    torch.testing.assert_close(learner.update(batch)["loss"], fit)


def fitted(*overrides, slack, steps=300, lr=0.05, unit="one", **options):
    """Weights fitted on all of O and D, the gap of every anchor, and the kernels on both."""
    _, estimator, _ = built("kbips", *overrides, seeds=(0,))
    space = estimator.space
    roughened(estimator, scale=0.3)
    learner = KernelWeightLearner(
        estimator, optimizer=adam(lr), strength=20.0, slack=slack, unit=unit, **options
    )
    learner.on_stage_start()
    batch = BatchSampler(space, "all", space.n_train, space.n_pairs).chunk(0, 1)[0]
    for step in range(steps):
        if step == steps * 3 // 4:  # the hinge has a corner: finish with small steps
            learner.optimizer.param_groups[0]["lr"] = lr / 20
        learner.update(batch)
    with torch.no_grad():
        w = space.density / estimator.p_hat(batch.rows)
        features = [estimator.features("representation", x) for x in (batch.rows, batch.pairs)]
        k_o, k_d = (estimator.networks["anchors"](x) for x in features)
        return w, balance_gap(w, k_o, k_d), k_o, k_d


def test_constraints_hold_for_each_anchor_after_convergence():
    slack = 0.02
    anchors = ["estimator.networks.anchors.n_anchors=3", "estimator.weighting.base=one"]
    w, gap, *_ = fitted(*anchors, "estimator.networks.weight.init_std=1.0", slack=slack)
    # the last steps move the means by about the learning rate, 0.0025
    assert gap.abs().max() <= slack + 5e-3
    torch.testing.assert_close(w.mean(-1), torch.ones(1), rtol=0, atol=slack + 5e-3)


def test_one_constant_kernel_gives_weights_of_mean_one():
    flat = [
        "estimator.networks.anchors.n_anchors=1",
        "estimator.networks.anchors.balanced=1",
        "estimator.networks.anchors.gamma=1e-12",
    ]
    w, gap, *_ = fitted(*flat, slack=0.0, constant=False, steps=200)
    # the last steps move the mean by about the learning rate, 0.0025
    torch.testing.assert_close(w.mean(-1), torch.ones(1), rtol=0, atol=5e-3)
    torch.testing.assert_close(gap[:, 0], 1 - w.mean(-1), rtol=0, atol=1e-5)


def test_balanced_weights_have_no_worst_function_and_others_a_gradient():
    _, estimator, _ = built("wkb_ips", FEW, seeds=(0,))
    roughened(estimator, scale=0.3)
    space = estimator.space
    learner = WorstCaseWeightLearner(estimator, optimizer=adam(), slack=0.0, unit="one")
    learner.on_stage_start()
    batch = BatchSampler(space, "all", space.n_train, space.n_pairs).chunk(0, 1)[0]
    k = learner._functions(batch.pairs, torch.zeros(1, 3, dtype=torch.long))
    every = torch.ones(1, space.n_pairs)
    assert learner.violation(every, k, k).item() <= 2e-6  # float32 means, and the root's 1e-6
    one = learner.violation(1.5 * every, torch.ones_like(k[:, :1]), torch.ones_like(k[:, :1]))
    assert one.item() == pytest.approx(0.5, abs=1e-5)  # the constant alone
    w = space.density / estimator.weighting.p_hat(estimator, batch.rows)
    k_o = learner._functions(batch.rows, torch.zeros(1, 3, dtype=torch.long))
    value = learner.violation(w, k_o, k)
    grads = torch.autograd.grad(value.sum(), learner.params)
    assert value.item() > 0.05
    assert all((g != 0).any() for g in grads)


def test_the_slack_of_a_noise_is_below_what_the_base_leaves_and_is_met():
    base, fit = fitted(slack=0.0, steps=0), fitted(slack=1.0, unit="noise")
    violated = []
    for w, gap, k_o, k_d in (base, fit):
        noise = balance_noise(w, k_o, k_d)
        violated.append((gap.abs() - noise).clamp(min=0).mean())
    # 512 anchors of which each step balances three: all come near
    assert violated[1] < 0.2 * violated[0]


def test_adaptive_anchors_find_the_kernel_that_the_error_is():
    anchors = AdaptiveAnchors(Sizes(5, 5, [0, 1]), dim=2, n_anchors=4, balanced=1, gamma=4.0)
    anchors.features.copy_(torch.tensor([[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]]))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 200, 4, generator=generator)
    kernels = anchors(x)
    for found in range(4):
        torch.nn.init.zeros_(anchors.coefficients)
        optimizer = adam(0.05)([anchors.coefficients], 2)
        for _ in range(200):
            loss = expansion_loss(
                kernels[:, found], anchors.coefficients, kernels, torch.ones(2, 200)
            )
            (anchors.coefficients.grad,) = torch.autograd.grad(loss.sum(), anchors.coefficients)
            optimizer.step()
        assert anchors.choose(torch.tensor([0, 1]), 0).flatten().tolist() == [found, found]


def test_the_anchor_learner_lowers_its_loss_and_touches_nothing_else():
    _, estimator, sampler = built("akbdr", FEW)
    roughened(estimator, scale=0.3)
    torch.nn.init.zeros_(estimator.networks["anchors"].coefficients)
    learner = AnchorLearner(estimator, optimizer=adam(0.005), inner_steps=3)
    learner.on_stage_start()
    before = state(estimator)
    batch = sampler.chunk(0, 1)[0]
    losses = [learner.update(batch)["loss"] for _ in range(5)]
    assert (losses[-1] < losses[0]).all()
    changed = {
        key for key, value in state(estimator).items() if not torch.equal(value, before[key])
    }
    assert changed == {"anchors.coefficients"}


def test_random_anchors_follow_seed_and_step_and_stay_in_range():
    anchors = KernelAnchors(Sizes(5, 5, [0, 1]), dim=2, n_anchors=10, balanced=4)
    seeds = torch.tensor([0, 1])
    first, again = anchors.choose(seeds, 7), anchors.choose(seeds, 7)
    assert torch.equal(first, again)
    assert torch.equal(anchors.choose(seeds[1:], 7), first[1:])
    assert not torch.equal(anchors.choose(seeds, 8), first)
    drawn = torch.cat([anchors.choose(seeds, step) for step in range(100)], dim=-1)
    assert set(drawn.flatten().tolist()) == set(range(10))


def test_a_set_larger_than_d_repeats_pairs():
    _, estimator, _ = built("kbips", "estimator.networks.anchors.n_anchors=1000")
    assert estimator.space.n_pairs < 1000
    estimator.networks["anchors"].place(estimator, "representation")
    features = estimator.networks["anchors"].features
    assert ((features >= 0) & (features <= 1)).all()


@pytest.mark.parametrize("link", ["exp", "sigmoid"])
@pytest.mark.parametrize("base", ["propensity", "one"])
@pytest.mark.parametrize("g", [-1e4, 0.0, 1e4])
def test_weights_and_their_gradients_are_finite(link, base, g):
    _, estimator, sampler = built("kbips", FEW)
    network = estimator.networks["weight"]
    for p in network.parameters():
        p.data.zero_()
    network.bias.globe.data.fill_(g)
    rows = sampler.chunk(0, 1)[0].rows
    weighting = KernelWeight(base=base, link=link, p_min=0.2, relative=True)
    p_hat = weighting.p_hat(estimator, rows)
    (grad,) = torch.autograd.grad((1 / p_hat).sum(), network.bias.globe)
    assert torch.isfinite(grad).all()
    assert (p_hat >= 0.2 * estimator.space.density).all()
    assert (weighting.propensity(estimator, rows) < 1).all()
    share = weighting.clipped_share(estimator, rows)
    assert ((share >= 0) & (share <= 1)).all()


def test_public_weights_never_exceed_their_base():
    _, estimator, sampler = built("kbips", FEW)
    roughened(estimator)
    rows = sampler.chunk(0, 1)[0].rows
    public = KernelWeight(base="one", link="sigmoid", p_min=1e-6).p_hat(estimator, rows)
    assert (estimator.space.density / public <= 1 + 1e-6).all()


def test_the_diagnosed_propensity_is_that_of_the_weights():
    _, estimator, sampler = built("kbips", FEW)
    roughened(estimator, scale=0.1)
    pairs = sampler.chunk(0, 1)[0].pairs
    inside = estimator.propensity(pairs).clamp(min=0.2 * estimator.space.density)
    torch.testing.assert_close(inside, estimator.p_hat(pairs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balanced": 0}, "balanced"),
        ({"balanced": 9, "n_anchors": 8}, "balanced"),
        ({"kind": "cubic"}, "cubic"),
        ({"gamma": 0.0}, "gamma"),
    ],
)
def test_anchor_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        KernelAnchors(Sizes(5, 5, [0]), dim=2, **options)


def test_weight_options_are_checked():
    with pytest.raises(InputError, match="link"):
        KernelWeight(link="linear")


def test_learners_name_what_they_miss():
    _, estimator, _ = built("kbips", FEW)
    with pytest.raises(InputError, match="AdaptiveAnchors"):
        AnchorLearner(estimator, optimizer=adam(), network="weight")
    with pytest.raises(InputError, match="slack"):
        KernelWeightLearner(estimator, optimizer=adam(), slack=-1.0)
    with pytest.raises(InputError, match="unit of the slack"):
        KernelWeightLearner(estimator, optimizer=adam(), unit="sd")
    with pytest.raises(InputError, match="ridge of the kernels"):
        WorstCaseWeightLearner(estimator, optimizer=adam(), ridge=0.0)
    with pytest.raises(InputError, match="unit=one"):
        KernelWeightLearner(estimator, optimizer=adam(), summed=True)
    with pytest.raises(InputError, match="KernelAnchors"):
        KernelWeightLearner(estimator, optimizer=adam(), anchors="weight")
