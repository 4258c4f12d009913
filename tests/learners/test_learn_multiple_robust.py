import pytest
import torch
from small_estimators import built, check_row, roughened

from upo.errors import InputError
from upo.learners.multiple_robust import BalanceLearner, MultipleRobust
from upo.models.ensemble import Balance
from upo.models.weighting import ClippedPropensity

# Lightning's own use of a torch name that a newer torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
EXACT = ("estimator.networks.balance.decay=0", "estimator.networks.balance.ridge=0")


def test_the_row_trains_and_its_stack_equals_its_parts():
    check_row("mr")


def test_a_batch_is_balanced_exactly_without_average_and_ridge():
    _, estimator, sampler = built("mr", *EXACT)
    roughened(estimator)
    batch = sampler.chunk(0, 1)[0]
    logs = BalanceLearner(estimator).update(batch)
    balance = estimator.networks["balance"]
    omega = balance.weight(estimator, batch.rows).double()
    got = (omega[:, None] * balance.columns(estimator, batch.rows)).mean(-1)
    # weights are rounded to float32 and may be much larger than the mean they balance
    expected = balance.columns(estimator, batch.pairs).mean(-1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logs["min_weight"].double(), omega.amin(-1))


def test_the_average_forgets_at_its_rate():
    _, estimator, sampler = built("mr", "estimator.networks.balance.decay=0.75")
    roughened(estimator)
    first, second = sampler.chunk(0, 2)
    balance, learner = estimator.networks["balance"], BalanceLearner(estimator)
    learner.update(first)
    u_1 = balance.columns(estimator, first.pairs).mean(-1)
    torch.testing.assert_close(balance.mean / balance.mass, u_1)
    learner.update(second)
    u_2 = balance.columns(estimator, second.pairs).mean(-1)
    expected = (0.75 * u_1 + u_2) / 1.75
    torch.testing.assert_close(balance.mean / balance.mass, expected)


def test_the_gradient_is_that_of_weighted_errors():
    _, estimator, sampler = built("mr", *EXACT)
    roughened(estimator)
    batch = sampler.chunk(0, 1)[0]
    BalanceLearner(estimator).update(batch)
    loss = MultipleRobust()(estimator, batch).sum()
    others = [
        p
        for role in estimator.networks
        if role != "prediction"
        for p in estimator.networks[role].parameters()
    ]
    grads = torch.autograd.grad(loss, others, allow_unused=True)
    assert all(g is None for g in grads)


def test_cut_weights_are_not_negative():
    _, estimator, sampler = built("mr", *EXACT, "estimator.networks.balance.nonnegative=true")
    roughened(estimator)
    batch, balance = sampler.chunk(0, 1)[0], estimator.networks["balance"]
    BalanceLearner(estimator).update(batch)
    balance.mean[:, 2:] *= -30  # imputed errors that no positive weights can balance
    omega = balance.weight(estimator, batch.rows)
    balance.nonnegative = False
    free = balance.weight(estimator, batch.rows)
    assert (free < 0).any()
    assert torch.equal(omega, free.clamp(min=0))


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
        ({"decay": 1.0}, "decay must lie in"),
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
    with pytest.raises(InputError, match="must be a Balance"):
        BalanceLearner(estimator, network="imputation_1")
