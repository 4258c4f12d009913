import pytest
import torch
from worlds import adam, make_estimator, make_space

from upo.errors import InputError
from upo.functional.imputation import omega_bias, omega_jl, omega_mrdr, omega_mse
from upo.functional.pointwise import cross_entropy
from upo.learners.imputation import ConstantLabel, ImputationLearner
from upo.learners.targeting import CollaborativeImputation
from upo.models.imputation import ConstantImputation, DirectError, Residual
from upo.pairs import BatchSampler

OMEGAS = [omega_jl, omega_mrdr, omega_bias, omega_mse]
every_omega = pytest.mark.parametrize("omega", OMEGAS, ids=lambda f: f.__name__)


def start(omega, form=None, lr=1e-4):
    space = make_space(holdout=0.2)
    estimator = make_estimator(space, form=form)
    learner = ImputationLearner(estimator, optimizer=adam(lr, weight_decay=0.0), omega=omega)
    return estimator, learner, BatchSampler(space, "debias", 20, 0).chunk(0, 1)[0]


@every_omega
def test_the_loss_is_the_weighted_squared_residual_of_the_pseudo_label(omega):
    """(e - e_hat)^2 = (y - r)^2 logit(f)^2: the e_hat of the prediction loss, not swapped."""
    estimator, learner, batch = start(omega)
    rows = batch.rows
    f, g, q = (
        estimator.networks[r](rows.users, rows.items)
        for r in ("prediction", "imputation", "propensity")
    )
    weight = omega(torch.sigmoid(q).clamp(min=0.1))
    squares = (torch.sigmoid(g) - rows.labels) ** 2 * f**2
    expected = estimator.space.density * (weight * squares).mean(-1)
    swapped = cross_entropy(g, torch.sigmoid(f)) - cross_entropy(f, rows.labels)
    wrong = estimator.space.density * (weight * swapped**2).mean(-1)
    value = learner.update(batch)["loss"]
    # float32: e - e_hat cancels to 1e-6 of errors up to about 5
    torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5)
    assert ((value - wrong).abs() > 0.05 * value).all()


@every_omega
def test_a_step_lowers_the_loss_of_its_batch(omega):
    _, learner, batch = start(omega)
    before, after = (learner.update(batch)["loss"] for _ in range(2))
    assert (after < before).all()


def test_imputed_errors_approach_the_observed_ones():
    estimator, learner, batch = start(omega_jl, DirectError(), lr=0.05)
    first = learner.update(batch)["loss"]
    for _ in range(300):
        last = learner.update(batch)["loss"]
    assert (last < 0.05 * first).all()
    rows = batch.rows
    gap = estimator.errors(rows) - estimator.imputed(rows)
    assert gap.abs().mean() < 0.2


def test_a_constant_label_is_the_self_normalised_mean_of_training_labels():
    space = make_space(holdout=0.3)
    estimator = make_estimator(space)
    estimator.networks["imputation"] = ConstantImputation(space.sizes)
    learner = ConstantLabel(estimator)
    learner.on_stage_start()
    label = torch.sigmoid(estimator.networks["imputation"].logit).squeeze(-1)
    for r in range(3):
        rows = space.train_rows(torch.arange(space.n_train).expand(3, -1))[r]
        users, items = space.keys[rows] // space.n_items, space.keys[rows] % space.n_items
        logit = estimator.networks["propensity"](users.expand(3, -1), items.expand(3, -1))[r]
        weight = 1 / torch.sigmoid(logit).clamp(min=0.1)
        expected = (weight * space.labels[rows]).sum() / weight.sum()
        torch.testing.assert_close(label[r], expected, rtol=1e-5, atol=1e-6)  # float32 sums
    assert learner.update(None) == {}
    assert learner.optimizer is None


def test_a_given_constant_label_stays():
    estimator = make_estimator(make_space())
    estimator.networks["imputation"] = ConstantImputation(estimator.space.sizes, label=0.3)
    ConstantLabel(estimator).on_stage_start()
    label = torch.sigmoid(estimator.networks["imputation"].logit)
    torch.testing.assert_close(label, torch.full((3, 1), 0.3))


def test_the_residual_form_learns_the_sign_of_the_residual():
    space = make_space(seeds=(0, 1))
    estimator = make_estimator(space, form=Residual())
    learner = ImputationLearner(estimator, optimizer=adam(0.05, 0.0), omega=omega_jl)
    sampler = BatchSampler(space, "test", space.n_train, 0)
    for batch in sampler.chunk(0, 150):
        learner.update(batch)
    rows = sampler.chunk(150, 1)[0].rows
    residual = rows.labels - torch.sigmoid(estimator.logit("prediction", rows))
    imputed = torch.tanh(estimator.logit("imputation", rows))
    # fitted on these very rows: nearly every sign is right; by squares alone half would be
    assert float((residual.sign() == imputed.sign()).float().mean()) > 0.9


@every_omega
def test_a_label_regression_is_a_weighted_cross_entropy_of_the_pseudo_label(omega):
    """Its gradient in g is density * omega * (sigma(g) - r) / B, whatever the prediction says."""
    estimator, _, batch = start(omega)
    learner = ImputationLearner(estimator, optimizer=adam(), omega=omega, regression="label")
    rows, space = batch.rows, estimator.space
    weight = omega(estimator.p_hat(rows))
    loss = learner.fit(rows)
    g = estimator.logit("imputation", rows)
    (found,) = torch.autograd.grad(loss.sum(), g, retain_graph=True)
    expected = space.density * weight * (torch.sigmoid(g) - rows.labels) / rows.users.shape[1]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-7)
    before = estimator.networks["prediction"].user.weight
    before.data.mul_(3.0)
    estimator.stepped("prediction")
    assert torch.equal(learner.fit(rows), loss)
    first, second = (learner.update(batch)["loss"] for _ in range(2))
    assert (second < first).all()


def test_a_label_regression_learns_where_the_prediction_says_one_half():
    estimator, learner, batch = start(omega_jl, lr=0.05)
    for p in estimator.networks["prediction"].parameters():
        p.data.zero_()
    estimator.stepped("prediction")
    before = estimator.networks["imputation"].user.weight.detach().clone()
    learner.update(batch)
    assert torch.equal(estimator.networks["imputation"].user.weight, before)
    ImputationLearner(estimator, optimizer=adam(0.05), omega=omega_jl, regression="label").update(
        batch
    )
    assert not torch.equal(estimator.networks["imputation"].user.weight, before)


def test_label_regressions_that_make_no_sense_are_refused():
    estimator = make_estimator(make_space(), form=DirectError())
    with pytest.raises(InputError, match="DirectError"):
        ImputationLearner(estimator, optimizer=adam(), omega=omega_jl, regression="label")
    estimator = make_estimator(make_space())
    with pytest.raises(InputError, match="'both'"):
        ImputationLearner(estimator, optimizer=adam(), omega=omega_jl, regression="both")
    with pytest.raises(InputError, match="CollaborativeImputation"):
        CollaborativeImputation(estimator, optimizer=adam(), omega=omega_jl, regression="label")


def test_the_estimate_stays_unbiased_with_a_pseudo_label_fitted_to_labels():
    """With the rate of observation as propensity, DR's mean over logs is the mean over D."""
    space = make_space(seeds=(0,))
    estimator = make_estimator(space)
    learner = ImputationLearner(estimator, optimizer=adam(0.05), omega=omega_jl, regression="label")
    sampler = BatchSampler(space, "test", space.n_train, 0)
    for batch in sampler.chunk(0, 30):
        learner.update(batch)
    index = torch.arange(space.n_pairs)[None]
    pairs = space.pairs(index, space.n_pairs)
    f, g = (estimator.logit(r, pairs).detach()[0] for r in ("prediction", "imputation"))
    generator = torch.Generator().manual_seed(0)
    labels = torch.bernoulli(torch.full_like(f, 0.4), generator=generator)
    p = 0.1 + 0.5 * torch.rand(f.shape, generator=generator)
    e, e_hat = cross_entropy(f, labels), cross_entropy(f, torch.sigmoid(g))
    o = torch.bernoulli(p.expand(20_000, -1), generator=generator)
    estimates = (e_hat + o * (e - e_hat) / p).mean(-1)
    error = estimates.std() / 20_000**0.5
    assert float((estimates.mean() - e.mean()).abs()) < 4 * float(error)
    assert float((e_hat.mean() - e.mean()).abs()) > 10 * float(error)  # the pseudo-label is not it
