import pytest
import torch
from worlds import adam, make_estimator, make_learners, make_space, parameters

from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.learners.prediction import (
    DoublyRobust,
    InversePropensity,
    Naive,
    PredictionLearner,
    SelfNormalized,
)
from upo.models.imputation import DirectError, PseudoLabel, Residual
from upo.models.weighting import ClippedPropensity
from upo.pairs import BatchSampler

OBJECTIVES = {
    "naive": Naive(),
    "ips": InversePropensity(),
    "snips": SelfNormalized(),
    "dr": DoublyRobust(),
    "dr_public": DoublyRobust(dr_form="public"),
}


class NoImputation(PseudoLabel):
    """e_hat = 0."""

    def imputed(self, f_logit, g_logit):
        return torch.zeros_like(f_logit)


def start(**settings):
    space = make_space(holdout=0.2)
    return make_estimator(space, **settings), BatchSampler(space, "debias", 20, 100)


def train(objective, steps=20, estimator=None, **settings):
    fresh, sampler = start(**settings)
    estimator = estimator or fresh
    learner = PredictionLearner(estimator, optimizer=adam(), objective=objective)
    for batch in sampler.chunk(0, steps):
        logs = learner.update(batch)
    assert logs["loss"].shape == (3,)
    assert not logs["loss"].requires_grad
    return parameters(estimator.networks["prediction"])


def assert_same(a, b, **tolerance):
    for name, p in a.items():
        torch.testing.assert_close(p, b[name], **tolerance)


EXACTLY = {"rtol": 0, "atol": 0}


def test_dr_without_imputed_errors_is_ips():
    """UPO-IPS is UPO-DR with e_hat = 0, through the same code."""
    assert_same(train(DoublyRobust(), form=NoImputation()), train(InversePropensity()), **EXACTLY)


def test_the_direct_form_trains_like_ips_and_the_others_do_not():
    ips = train(InversePropensity())
    # same gradients up to float32: e - e_hat is rounded before e_hat drops out
    assert_same(train(DoublyRobust(), form=DirectError()), ips, rtol=0, atol=1e-5)
    for form in (PseudoLabel(), Residual()):
        other = train(DoublyRobust(), form=form)
        assert (other["user.weight"] - ips["user.weight"]).abs().max() > 1e-2


def test_a_certain_propensity_turns_the_weights_off():
    """p_min = 1: SNIPS is naive, and IPS is naive times a constant that Adam does not see."""
    naive = train(Naive())
    assert_same(train(SelfNormalized(), p_min=1.0), naive, rtol=0, atol=1e-6)  # float32
    estimator, sampler = start(p_min=1.0)
    batch = sampler.chunk(0, 1)[0]
    value = InversePropensity()(estimator, batch)
    torch.testing.assert_close(value, estimator.space.density * Naive()(estimator, batch))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_match_their_formulas(name):
    estimator, sampler = start()
    space, batch = estimator.space, sampler.chunk(0, 1)[0]
    f, g, q = (estimator.networks[r] for r in ("prediction", "imputation", "propensity"))
    for r in range(3):
        o, d = batch.rows, batch.pairs
        e = cross_entropy(f(o.users, o.items), o.labels)[r]
        e_hat = cross_entropy(f(o.users, o.items), torch.sigmoid(g(o.users, o.items)))[r]
        e_hat_d = cross_entropy(f(d.users, d.items), torch.sigmoid(g(d.users, d.items)))[r]
        p = torch.sigmoid(q(o.users, o.items))[r].clamp(min=0.1)
        expected = {
            "naive": e.mean(),
            "ips": space.density * (e / p).mean(),
            "snips": (e / p).sum() / (1 / p).sum(),
            "dr": e_hat_d.mean() + space.density * ((e - e_hat) / p).mean(),
            "dr_public": ((e / p).sum() - e_hat.sum() + e_hat_d.sum()) / 100,
        }[name]
        value = OBJECTIVES[name](estimator, batch)[r]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)  # float32 sums


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_lowers_the_loss_of_its_batch(name):
    estimator, sampler = start()
    learner = PredictionLearner(
        estimator, optimizer=adam(lr=1e-4, weight_decay=0.0), objective=OBJECTIVES[name]
    )
    batch = sampler.chunk(0, 1)[0]
    before, after = (learner.update(batch)["loss"] for _ in range(2))
    assert (after < before).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_gradient_reaches_propensity_or_imputation(name):
    estimator, sampler = start()
    loss = OBJECTIVES[name](estimator, sampler.chunk(0, 1)[0]).sum()
    for role in ("propensity", "imputation"):
        params = list(estimator.networks[role].parameters())
        assert torch.autograd.grad(loss, params, allow_unused=True, retain_graph=True) == (
            None,
        ) * len(params)
    own = list(estimator.networks["prediction"].parameters())
    assert all(g.any() for g in torch.autograd.grad(loss, own))


def test_labels_of_held_out_rows_do_not_reach_the_loss():
    """Flip every held-out label: nothing changes."""
    values = []
    for flip in (False, True):
        estimator, sampler = start()
        space = estimator.space
        if flip:
            held = space.held_rows(0, space.n_held)[:1].flatten()
            space.labels[held] = 1 - space.labels[held]
        batch = sampler.chunk(0, 1)[0]
        values.append([o(estimator, batch)[0].item() for o in OBJECTIVES.values()])
        learners = make_learners(estimator)
        values[-1] += [
            x.update(batch)["loss"][0].item() for x in learners.values() if x.network != "adversary"
        ]
    assert values[0] == values[1]


def test_methods_without_propensity_say_so():
    estimator, sampler = start()
    estimator._weighting = None
    batch = sampler.chunk(0, 1)[0]
    assert not estimator.has_propensity
    Naive()(estimator, batch)
    with pytest.raises(InputError, match=r"estimator\.weighting"):
        InversePropensity()(estimator, batch)


def test_an_unknown_form_is_named():
    with pytest.raises(InputError, match="'private'"):
        DoublyRobust(dr_form="private")


def test_the_weighting_clips_for_each_replica():
    estimator, sampler = start()
    batch = sampler.chunk(0, 1)[0]
    raw = estimator.propensity(batch.pairs).detach()
    density = estimator.space.density
    for floors, weighting in [
        ([0.2] * 3, ClippedPropensity(p_min=0.2, relative=False)),
        ([0.05, 0.2, 0.4], ClippedPropensity(p_min=[0.05, 0.2, 0.4], relative=False)),
        ([0.5 * density] * 3, ClippedPropensity(p_min=0.5, relative=True)),
    ]:
        p_hat = weighting.p_hat(estimator, batch.pairs).detach()
        assert torch.equal(p_hat, torch.maximum(raw, torch.tensor(floors)[:, None]))
    assert (raw < 0.2).any()
    assert not estimator.p_hat(batch.pairs).requires_grad


@pytest.mark.parametrize("p_min", [-0.1, 1.1, float("nan"), float("inf"), [0.1, -0.1, 0.1]])
def test_a_wrong_clip_is_named(p_min):
    with pytest.raises(InputError, match="p_min"):
        ClippedPropensity(p_min=p_min, relative=False)


def test_a_clip_is_a_multiple_of_the_density_and_zero_is_none():
    estimator, sampler = start()
    batch = sampler.chunk(0, 1)[0]
    density = estimator.space.density
    with torch.no_grad():
        estimator.networks["propensity"].intercept.fill_(-30.0)  # below any clip
    for p_min, floor in ((0.0, 1e-6), (0.5, 0.5 * density), (2.0, 2 * density), (100.0, 1.0)):
        weighting = ClippedPropensity(p_min=p_min)
        assert weighting.floor(estimator) == pytest.approx(floor)
        p_hat = weighting.p_hat(estimator, batch.pairs)
        torch.testing.assert_close(p_hat, torch.full_like(p_hat, floor))
        estimator.stepped("propensity")
