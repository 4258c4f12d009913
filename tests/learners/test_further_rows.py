"""Rows whose limits are other rows: CVIB, EIB, RD-IPS, RD-DR, User-Item-DR."""

import pytest
import torch
from small_estimators import built, roughened

from upo.errors import InputError
from upo.functional.prediction import snips_loss
from upo.learners.contrast import Contrast, ErrorImputation
from upo.learners.prediction import DoublyRobust, InversePropensity, Naive
from upo.learners.raking import Raking
from upo.learners.robust import RobustDoublyRobust, RobustInversePropensity
from upo.learners.tilting import Tilting
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
        ({"network": "propensity"}, "Raking needs a RakedPropensity"),
    ],
)
def test_a_raking_that_cannot_be_ends_in_a_sentence(settings, message):
    _, estimator, _ = built("user_item_dr")
    with pytest.raises(InputError, match=message):
        Raking(estimator, **settings)
