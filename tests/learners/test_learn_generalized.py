import pytest
import torch
from balancing_runs import adam, check_stack, run_steps, state
from small_estimators import built, roughened

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.balancing import orthogonality
from upo.functional.pointwise import cross_entropy
from upo.functional.prediction import snips_loss
from upo.functional.propensity import upo_loss
from upo.learners.generalized import (
    GeneralizedPenalty,
    NeighbourPropensityLearner,
    OrthogonalityPenalty,
)
from upo.learners.propensity import PropensityLearner
from upo.learners.residuals import ResidualPenalty
from upo.models.metric_weights import balancing_weight, calibration_weight
from upo.models.neighbours import Neighbours
from upo.pairs import BatchSampler

ROWS = ["stable_dr", "dr_gpl", "umvue_dr", "cbpl"]
PENALTIES = {
    "orthogonality": OrthogonalityPenalty(),
    "gpl": GeneralizedPenalty(),
    "calibration": ResidualPenalty(weight=calibration_weight),
    "balance": ResidualPenalty(weight=balancing_weight),
}
CUT = ["+estimator.bins._target_=upo.models.bins.Bins", "+estimator.bins.rule=equal_mass"]
FEW = "estimator.networks.neighbours.count=64"


@pytest.mark.slow  # tests/runs/test_configs.py compares whole runs of these rows
@pytest.mark.parametrize("name", ROWS)
def test_stack_equals_its_parts(name):
    check_stack(name, *([FEW] if name == "umvue_dr" else []))


@pytest.mark.parametrize("name", ["dr_gpl", "umvue_dr", "cbpl"])
def test_without_its_propensity_player_it_is_dr_jl(name):
    mine = state(run_steps(name, "estimator.stages.debias.first=[]", stages=["debias"]))
    size = "estimator.stages.debias.pair_batch=2048"
    theirs = state(run_steps("dr_jl", size, stages=["debias"]))
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-7)


def test_stable_dr_without_its_constraint_predicts_as_snips():
    players = "estimator.stages.debias.learners=[imputation,prediction]"
    mine = state(run_steps("stable_dr", "variant=penalised", players, stages=["debias"]))
    theirs = state(run_steps("snips", stages=["debias"]))
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=0, atol=1e-7)


def test_players_of_stable_dr_step_in_the_published_order():
    config, _, _ = built("stable_dr", "variant=penalised")
    assert config.estimator.stages.debias.learners == ["imputation", "constrained", "prediction"]


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_move_the_propensity_alone(name):
    _, estimator, sampler = built("dr_gpl", *CUT)
    roughened(estimator, scale=0.3)
    pairs = sampler.chunk(0, 1)[0].pairs
    value = PENALTIES[name](estimator, pairs, estimator.propensity(pairs))
    assert value.shape == (2,)
    networks = estimator.networks
    mine = list(networks["propensity"].parameters())
    others = [*networks["prediction"].parameters(), *networks["imputation"].parameters()]
    grads = torch.autograd.grad(value.sum(), mine + others, allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in grads[: len(mine)])
    assert all(g is None for g in grads[len(mine) :])


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_finite_at_propensities_0_and_1(name, logit):
    _, estimator, sampler = built("dr_gpl", *CUT)
    for p in estimator.networks["propensity"].parameters():
        p.data.zero_()
    estimator.networks["propensity"].intercept.data.fill_(logit)
    pairs = sampler.chunk(0, 1)[0].pairs
    value = PENALTIES[name](estimator, pairs, estimator.propensity(pairs))
    params = list(estimator.networks["propensity"].parameters())
    grads = torch.autograd.grad(value.sum(), params, allow_unused=True)
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in grads if g is not None)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", ROWS)
def test_labels_of_one_class_leave_every_step_finite(name, label):
    run_steps(name, steps=3, label=label)


def test_a_constrained_propensity_makes_snips_of_the_imputed_errors_their_mean():
    _, estimator, _ = built("stable_dr", "variant=penalised", seeds=(0,))
    roughened(estimator, scale=0.5)
    space = estimator.space
    batch = BatchSampler(space, "all", space.n_train, space.n_pairs).chunk(0, 1)[0]
    learner = PropensityLearner(
        estimator,
        optimizer=adam(0.01),
        loss=cross_entropy,
        penalties={"orthogonality": OrthogonalityPenalty(eta=1e5)},
    )

    def distance():
        pairs, seen = batch.pairs, batch.pairs.observed
        e_hat, p_hat = estimator.imputed(pairs).detach(), estimator.p_hat(pairs)
        gap = snips_loss(e_hat[seen][None], p_hat[seen][None]) - e_hat.mean(-1)
        return gap.abs(), orthogonality(p_hat, pairs.o, e_hat).abs()

    before = distance()
    for _ in range(200):
        learner.update(batch)
    after = distance()
    # the constraint holds to what a penalty of 1e5 leaves, and the identity with it
    assert after[1] < 1e-3 < before[1]
    assert after[0] < 2e-3 < before[0]


def test_residual_penalty_of_one_is_the_calibration_error_of_the_bins():
    _, estimator, sampler = built("cbpl")
    roughened(estimator, scale=0.3)
    pairs = sampler.chunk(0, 1)[0].pairs
    p_hat = estimator.propensity(pairs)
    value = ResidualPenalty(weight=calibration_weight, beta=2.0)(estimator, pairs, p_hat)
    expected = 2 * upo_loss(p_hat, pairs.o, 1.0, num_bins=10, binning="equal_mass")
    torch.testing.assert_close(value, expected)


def test_adaptive_bins_need_no_adversary_and_are_never_one_bin_unsaid():
    _, estimator, sampler = built("cbpl", "estimator.bins.rule=adaptive")
    roughened(estimator, scale=0.3)
    pairs = sampler.chunk(0, 1)[0].pairs
    p_hat = estimator.propensity(pairs).detach()
    with pytest.raises(InputError, match="use equal_mass"):
        estimator.bins.index(p_hat)
    penalties = {"calibration": PENALTIES["calibration"]}
    learner = PropensityLearner(
        estimator, optimizer=adam(), loss=cross_entropy, penalties=penalties
    )
    learner.on_epoch_start(0, sampler)
    assert len(estimator.bins.index(p_hat).unique()) == 10


@pytest.mark.parametrize("name", ["dr_gpl", "umvue_dr"])
def test_bounds_have_a_gradient_at_rows_below_the_clip_that_divides(name):
    _, estimator, sampler = built(name, "estimator.weighting.p_min=0.9")
    roughened(estimator, scale=0.1)
    batch = sampler.chunk(0, 1)[0]
    assert (estimator.propensity(batch.pairs) < 0.9).all()  # all are clipped where they divide
    if name == "dr_gpl":
        value = GeneralizedPenalty()(estimator, batch.pairs, estimator.propensity(batch.pairs))
    else:
        learner = NeighbourPropensityLearner(estimator, optimizer=adam(), loss=cross_entropy)
        learner.on_stage_start()
        value = learner._bounds(batch)
    (slope,) = torch.autograd.grad(value.sum(), estimator.networks["propensity"].intercept)
    assert (slope != 0).all()


def test_the_balancing_weight_bounds_the_imbalance():
    _, estimator, sampler = built("cbpl")
    roughened(estimator, scale=0.1)
    pairs = sampler.chunk(0, 1)[0].pairs
    p_hat, f = estimator.propensity(pairs), torch.sigmoid(estimator.logit("prediction", pairs))
    value = ResidualPenalty(weight=balancing_weight)(estimator, pairs, p_hat)
    imbalance = ((pairs.o / p_hat - (1 - pairs.o) / (1 - p_hat)) * f).mean(-1).abs()
    assert (value >= imbalance - 1e-6).all()  # float32 sums


def test_neighbours_share_is_that_of_a_plain_search():
    _, estimator, sampler = built("umvue_dr", FEW, "estimator.networks.neighbours.k=5")
    found = estimator.networks["neighbours"]
    pairs = found.place(estimator, "representation")
    rows = sampler.chunk(0, 1)[0].rows
    q = found(estimator.features("representation", rows), rows)
    scaled = found.scaled(estimator.features("representation", rows))
    for r in range(2):
        for b in range(10):
            others = [
                (float(torch.dist(scaled[r, b], found.features[r, m])), float(pairs.o[r, m]))
                for m in range(64)
                if (pairs.users[r, m], pairs.items[r, m]) != (rows.users[r, b], rows.items[r, b])
            ]
            nearest = sorted(others)[:5]
            assert q[r, b].item() == pytest.approx(sum(o for _, o in nearest) / 5)


def test_neighbours_of_pairs_in_the_set_exclude_themselves():
    _, estimator, _ = built("umvue_dr", "estimator.networks.neighbours.count=480")
    found = estimator.networks["neighbours"]  # the set is all of D: 24 x 20
    pairs = found.place(estimator, "representation")
    found.observed.copy_(torch.zeros_like(found.observed))
    found.observed[:, 0] = 1.0
    q = found(estimator.features("representation", pairs), pairs)
    assert (q[:, 0] == 0).all()


@pytest.mark.parametrize("k", [1, 8])
def test_neighbour_options_are_checked(k):
    with pytest.raises(InputError, match=r"neighbours\.k"):
        Neighbours(Sizes(5, 5, [0]), dim=2, k=k, count=8)


def test_options_are_checked():
    with pytest.raises(InputError, match="mix"):
        GeneralizedPenalty(mix=1.5)
    with pytest.raises(InputError, match="floor"):
        GeneralizedPenalty(floor=-1.0)
    with pytest.raises(InputError, match="eta"):
        OrthogonalityPenalty(eta=-1.0)
    _, estimator, _ = built("umvue_dr", FEW)
    loss = cross_entropy
    with pytest.raises(InputError, match="Neighbours"):
        NeighbourPropensityLearner(estimator, optimizer=adam(), loss=loss, neighbours="prediction")
