"""Rows whose limits are other rows: CVIB, EIB, RD-IPS, RD-DR, User-Item-DR, CDR, BRD-DR."""

import pytest
import torch
from small_estimators import built, roughened

from upo.core.layers import Sizes
from upo.core.sampling import stream_key
from upo.errors import InputError
from upo.functional.prediction import snips_loss
from upo.learners.contrast import Contrast, ErrorImputation
from upo.learners.prediction import DoublyRobust, InversePropensity, Naive
from upo.learners.raking import Raking
from upo.learners.robust import BenchmarkedDoublyRobust, RobustDoublyRobust, RobustInversePropensity
from upo.learners.tilting import Tilting
from upo.learners.trust import Trust
from upo.models.conservative import Conservative, thinning
from upo.pairs import training_rows


def batch_of(name):
    _, estimator, sampler = built(name)
    roughened(estimator, scale=0.5)
    return estimator, sampler.chunk(0, 1)[0]


def test_a_contrast_of_nothing_is_the_naive_objective():
    estimator, batch = batch_of("cvib")
    torch.testing.assert_close(
        Contrast(alpha=0.0, gamma=0.0)(estimator, batch), Naive()(estimator, batch)
    )


@pytest.mark.parametrize(
    ("name", "robust", "plain"),
    [
        ("rd_ips", RobustInversePropensity, InversePropensity),
        ("rd_dr", RobustDoublyRobust, DoublyRobust),
    ],
)
def test_a_band_of_one_trusts_the_propensities(name, robust, plain):
    estimator, batch = batch_of(name)
    known = plain()(estimator, batch)
    torch.testing.assert_close(robust(gamma=1.0)(estimator, batch), known)
    assert (robust(gamma=2.0)(estimator, batch) > known).all()  # the adversary raises the loss


def test_imputation_alone_reads_no_propensity():
    estimator, batch = batch_of("eib")
    assert not estimator.has_propensity
    assert torch.isfinite(ErrorImputation()(estimator, batch)).all()


def test_raking_gives_every_item_its_cells_and_moves_users_towards_theirs():
    _, estimator, _ = built("user_item_dr")
    roughened(estimator, scale=0.3)
    space = estimator.space
    rows = next(iter(training_rows(space)))

    def total(role, index, size):
        zeros = torch.zeros(space.replicas, size, dtype=torch.float64)
        return zeros.scatter_add(1, index, 1 / estimator.probability(role, rows).double())

    before = total("propensity", rows.users, space.n_users)
    Raking(estimator, slack=0.0, sweeps=100, limit=float("inf")).on_stage_start()
    items = total("raked", rows.items, space.n_items)
    has = items > 0
    wanted = torch.full_like(items, float(space.n_users))
    # solved last, exactly: float32 sums of a few dozen weights
    torch.testing.assert_close(items[has], wanted[has], rtol=1e-4, atol=0.0)
    # two users with one and the same item cannot both have all their cells, so users come near only
    gaps = [
        (total_ - space.n_items).abs().mean()
        for total_ in (before, total("raked", rows.users, space.n_users))
    ]
    assert gaps[1] < 0.5 * gaps[0]


def test_a_tilted_propensity_makes_snips_of_the_imputed_errors_their_mean():
    _, estimator, sampler = built("stable_dr")
    roughened(estimator, scale=0.5)
    estimator.networks["tilted"].limit = float("inf")  # as they are, extremes included
    Tilting(estimator).on_epoch_start(0, sampler)
    space = estimator.space
    pairs = space.pairs(torch.arange(space.n_pairs).expand(space.replicas, -1), space.n_pairs)
    rows = next(iter(training_rows(space)))
    found = snips_loss(estimator.imputed(rows), estimator.probability("tilted", rows))
    # float32 imputed errors; without the tilt the two differ by a hundred times more
    torch.testing.assert_close(found, estimator.imputed(pairs).mean(-1), rtol=0, atol=2e-5)
    before = snips_loss(estimator.imputed(rows), estimator.probability("propensity", rows))
    assert ((before - estimator.imputed(pairs).mean(-1)).abs() > 1e-3).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contrast(alpha=-1.0), "alpha of the contrast must be at least 0"),
        (lambda: RobustInversePropensity(gamma=0.5), "gamma of the robust objective"),
        (lambda: Conservative(Sizes(5, 5, [0]), share=2.0), "share of the conservative imputation"),
        (lambda: Conservative(Sizes(5, 5, [0]), rate=1.0), "rate of the conservative imputation"),
    ],
)
def test_numbers_out_of_range_end_in_a_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slack": -1.0}, "slack of the raking"),
        ({"sweeps": 0}, "sweeps of the raking"),
        ({"limit": 0.0}, "limit of the raking"),
        ({"network": "propensity"}, "must be of the kind RakedPropensity"),
    ],
)
def test_a_raking_that_cannot_be_ends_in_a_sentence(settings, message):
    _, estimator, _ = built("user_item_dr")
    with pytest.raises(InputError, match=message):
        Raking(estimator, **settings)


# -- CDR -----------------------------------------------------------------------------------------


def conservative(**settings):
    """A CDR estimator with some settings of its filter, and a batch."""
    words = [f"estimator.networks.imputed.{key}={value}" for key, value in settings.items()]
    _, estimator, sampler = built("cdr", *words)
    roughened(estimator, scale=0.5)
    return estimator, sampler.chunk(0, 1)[0]


def without_filter(estimator, batch):
    """The same networks as DR-JL."""
    imputed = estimator.networks.pop("imputed")
    value = DoublyRobust()(estimator, batch)
    estimator.networks["imputed"] = imputed
    return value


def test_imputations_that_never_spread_are_those_of_dr():
    estimator, batch = conservative(rate=0.0, share=1.0)
    Trust(estimator).on_epoch_start(0, None)
    # six equal float32 numbers have their own mean but for rounding
    torch.testing.assert_close(
        DoublyRobust()(estimator, batch), without_filter(estimator, batch), rtol=1e-5, atol=1e-6
    )


def test_without_trust_it_is_ips_and_with_all_of_it_nothing_is_left_out():
    estimator, batch = conservative(share=0.0)
    Trust(estimator).on_epoch_start(0, None)
    assert (estimator.imputed(batch.pairs) == 0).all()
    torch.testing.assert_close(
        DoublyRobust()(estimator, batch), InversePropensity()(estimator, batch)
    )
    estimator, batch = conservative(share=1.0)
    Trust(estimator).on_epoch_start(0, None)
    assert (estimator.imputed(batch.pairs) > 0).all()


def test_the_share_that_spreads_least_is_kept():
    estimator, batch = conservative(share=0.6)
    learner = Trust(estimator)
    learner.on_epoch_start(0, None)
    kept = estimator.imputed(batch.pairs) != 0
    torch.testing.assert_close(kept.float().mean(-1), torch.full((2,), 0.6))
    drawn = estimator.networks["imputed"].drawn(estimator, batch.pairs)
    spread = drawn.std(0, correction=0) / drawn.mean(0)
    for r in range(2):  # float32 standard deviations, computed in two ways
        assert spread[r][kept[r]].max() <= spread[r][~kept[r]].min() * (1 + 1e-4)
    assert (learner.update(batch)["tau"] > 0).all()


def test_a_thinned_network_has_the_mean_of_the_whole_one():
    _, estimator, sampler = built("cdr", seeds=(0,))
    roughened(estimator, scale=0.5)
    network, pairs = estimator.networks["imputation"], sampler.chunk(0, 1)[0].pairs
    drawn = []
    for draw in range(2000):
        with thinning(network, 0.3, stream_key(estimator.space.seeds, draw)):
            drawn.append(network(pairs.users, pairs.items))
    drawn = torch.stack(drawn)
    distance = (drawn.mean(0) - network(pairs.users, pairs.items)) / (drawn.std(0) / 2000**0.5)
    assert distance.square().mean() < 1.5  # of 480 pairs, which share their dimensions


# -- BRD -----------------------------------------------------------------------------------------


def test_a_benchmark_that_is_the_prediction_has_no_excess_and_the_band_of_one_is_dr():
    estimator, batch = batch_of("brd_dr")
    brd = BenchmarkedDoublyRobust(gamma=1.0)
    torch.testing.assert_close(brd(estimator, batch), DoublyRobust()(estimator, batch))
    assert (brd.excess(estimator, batch) != 0).any()
    networks = estimator.networks
    networks["benchmark"].load_state_dict(networks["prediction"].state_dict())
    estimator.stepped("benchmark")
    assert (brd.excess(estimator, batch) == 0).all()


def test_the_adversary_of_a_benchmark_raises_the_excess_most():
    estimator, batch = batch_of("brd_dr")
    excess = BenchmarkedDoublyRobust(gamma=2.0).excess(estimator, batch)
    p_hat = estimator.p_hat(batch.rows)
    values = [
        (excess / robust.worst(p_hat, gain)).sum(-1)
        for robust in [RobustDoublyRobust(gamma=2.0)]
        for gain in (excess, torch.rand_like(excess), -excess)
    ]
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()
