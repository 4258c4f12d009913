import pytest
import torch
from small_estimators import built, check_row, roughened

from upo.errors import InputError
from upo.learners.multiple_robust import BalanceLearner, MultipleRobust
from upo.models.ensemble import Balance
from upo.models.weighting import ClippedPropensity
from upo.pairs import training_rows

# Lightning's own use of a torch name that a newer torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
EXACT = "estimator.networks.balance.ridge=0"
SIGNED = "estimator.networks.balance.nonnegative=false"


def solved(*overrides):
    """Networks with random weights whose balance is solved, all training rows, and a batch."""
    _, estimator, sampler = built("mr", *overrides)
    roughened(estimator)
    learner = BalanceLearner(estimator)
    learner.on_epoch_start(0, sampler)
    rows = next(iter(training_rows(estimator.space)))
    return estimator, rows, sampler.chunk(0, 1)[0], learner


def test_the_row_trains_and_its_stack_equals_its_parts():
    check_row("mr")


@pytest.mark.parametrize("words", [(EXACT, SIGNED), (EXACT,)])
def test_the_log_is_balanced_against_all_of_d(words):
    estimator, rows, batch, learner = solved(*words)
    balance = estimator.networks["balance"]
    omega = balance.weight(estimator, rows).double()
    got = (omega[:, None] * balance.columns(estimator, rows)).mean(-1)
    expected = balance.columns(estimator, batch.pairs).mean(-1)
    found = ((got - expected) / expected).abs().amax(-1)
    if SIGNED in words:
        # weights are rounded to float32 and may be much larger than the mean they balance
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        assert (balance.miss < 1e-9).all()
    else:  # some means lie outside the hull of these few rows: what is missed is told
        torch.testing.assert_close(found, balance.miss, rtol=1e-3, atol=1e-4)
        assert (omega >= 0).all()
    logs = learner.update(batch)
    torch.testing.assert_close(logs["min_weight"], balance.weight(estimator, batch.rows).amin(-1))


def test_rows_keep_their_weights_between_two_solutions():
    estimator, _, batch, _ = solved()
    balance = estimator.networks["balance"]
    before = balance.weight(estimator, batch.rows)
    roughened(estimator, seed=3)
    assert torch.equal(balance.weight(estimator, batch.rows), before)
    balance.solve(estimator)
    assert not torch.equal(balance.weight(estimator, batch.rows), before)


def test_the_gradient_is_that_of_weighted_errors():
    estimator, _, batch, _ = solved(EXACT)
    loss = MultipleRobust()(estimator, batch).sum()
    others = [
        p
        for role in estimator.networks
        if role != "prediction"
        for p in estimator.networks[role].parameters()
    ]
    grads = torch.autograd.grad(loss, others, allow_unused=True)
    assert all(g is None for g in grads)


def test_weights_that_reward_errors_are_replaced(monkeypatch):
    estimator, rows, _, _ = solved(EXACT, SIGNED)
    balance = estimator.networks["balance"]
    negative = -torch.ones(2, rows.total, dtype=torch.float64)
    monkeypatch.setattr("upo.models.ensemble.balancing_weights", lambda *_: negative)
    balance.solve(estimator)
    assert (balance.weight(estimator, rows) == -1).all()
    balance.nonnegative = True
    balance.solve(estimator)
    assert (balance.weight(estimator, rows) >= 0).all()


def test_the_imputation_for_diagnostics_is_the_mean_of_the_members():
    _, estimator, sampler = built("mr")
    roughened(estimator)
    pairs = sampler.chunk(0, 1)[0].pairs
    f = estimator.logit("prediction", pairs)
    members = [
        estimator.form.imputed(f, estimator.logit(r, pairs))
        for r in ("imputation_1", "imputation_2")
    ]
    # float32 logarithms of sums
    torch.testing.assert_close(estimator.imputed(pairs), sum(members) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"ridge": -1.0}, "ridge must be at least 0"),
        ({"propensities": [], "imputations": []}, "at least one"),
    ],
)
def test_a_wrong_balance_says_so(bad, message):
    _, estimator, _ = built("mr")
    fine = {"propensities": [ClippedPropensity()], "imputations": ["imputation_1"]}
    with pytest.raises(InputError, match=message):
        Balance(estimator.space.sizes, **{**fine, **bad})


def test_the_learner_needs_a_balance():
    _, estimator, _ = built("mr")
    with pytest.raises(InputError, match="must be of the kind Balance"):
        BalanceLearner(estimator, network="imputation_1")
