"""The rules by which a stage's batches, lengths and patience follow from the log."""

import pytest
from worlds import make_space

from upo.errors import InputError
from upo.training.plan import StagePlan, nearest_power, propensity_batch, row_batch

AUTO = dict.fromkeys(("epochs", "patience", "steps"), "auto")


@pytest.mark.parametrize(
    ("rows", "batch"),
    [(1, 1), (20, 16), (200, 128), (6264, 512), (80_000, 2048), (300_000, 4096), (10**9, 65536)],
)
def test_a_batch_of_rows_is_the_power_of_two_nearest_seven_roots(rows, batch):
    assert row_batch(rows) == batch


def test_nearest_is_meant_by_ratio():
    assert [nearest_power(x) for x in (1, 1.4, 1.5, 90, 91, 0.1)] == [1, 1, 2, 64, 128, 1]


def test_a_batch_of_a_propensity_holds_a_batch_of_rows():
    assert propensity_batch(6264, 0.08) == 8192  # 512 / .08 = 6,400
    assert propensity_batch(600, 0.3) == 4096
    assert propensity_batch(300_000, 0.003) == 65536


def test_a_plan_is_resolved_on_its_log():
    space = make_space([0], holdout=0.1, n_users=100, n_items=100, density=0.2)
    debias = StagePlan(observed_batch="auto", pair_batch="auto", **AUTO).at(space)
    rows = row_batch(space.n_train)
    assert (debias.observed_batch, debias.pair_batch) == (rows, rows)
    beside = StagePlan(observed_batch="auto", pair_batch="auto", pairs_per_row=4, **AUTO).at(space)
    assert (beside.observed_batch, beside.pair_batch) == (rows, 4 * rows)
    assert debias.steps == space.n_train // rows
    assert debias.epochs == max(40, -(-2400 // debias.steps))
    assert debias.patience == min(100, max(3, -(-1200 // debias.steps)))
    propensity = StagePlan(pair_batch="auto", select=True, **AUTO).at(space)
    assert propensity.pair_batch == 4096
    assert propensity.steps == -(-space.n_train_cells // 4096)
    assert propensity.epochs == 400  # short epochs: the most there may be


def test_numbers_are_taken_as_they_are():
    plan = StagePlan(epochs=7, observed_batch=30, pair_batch=10_000, patience=2)
    fixed = plan.at(make_space([0]))
    assert (fixed.epochs, fixed.observed_batch, fixed.pair_batch) == (7, 30, 10_000)
    assert (fixed.patience, fixed.steps, fixed.select) == (2, make_space([0]).n_train // 30, False)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"epochs": 0, "observed_batch": 1}, "epochs"),
        ({"epochs": "many", "observed_batch": 1}, "'many'"),
        ({"epochs": 1, "observed_batch": 1, "steps": 0}, "steps"),
        ({"epochs": 1, "observed_batch": 1, "select": "first"}, "'first'"),
        ({"epochs": 1, "observed_batch": 1, "pairs_per_row": 0}, "pairs_per_row"),
        ({"epochs": 1}, "observed_batch or pair_batch"),
    ],
)
def test_wrong_plans_are_named(wrong, word):
    with pytest.raises(InputError, match=word):
        StagePlan(**wrong)
