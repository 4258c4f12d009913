"""``upo.repair``: distorted propensities come back right, and its rows do not read themselves."""

import numpy as np
import pandas as pd
import pytest
from auditing_tables import sampled, true_table, with_columns

import upo
from upo.audit.repair import repair


def distorted(seed, size=80):
    """A world whose propensities are too steep, and twice the odds in one region."""
    table = with_columns(true_table(seed, size), seed, odds=2.0)
    return table.assign(propensity=table.propensity**1.3)


def test_a_distorted_world_is_repaired():
    table = distorted(0)
    found = upo.repair("propensity", table)
    assert found.before.n_found > 0
    assert found.after.n_found == 0
    for bins in found.after.bins:
        assert bins.ece <= 1.5 * bins.null_mean
    assert found.propensity.between(0, 1, inclusive="neither").all()
    truth = true_table(0, 80).propensity
    assert (found.propensity - truth).abs().mean() < (table.propensity - truth).abs().mean()
    assert "ECE" in found.summary()
    assert "0 after" in repr(found)


def test_rows_answer_in_their_order_and_do_not_read_themselves():
    table = distorted(1, 40).sample(frac=1.0, random_state=0)
    found = repair("propensity", table).propensity
    assert found.index.equals(table.index)
    again = repair(table.propensity.to_numpy(), table.drop(columns="propensity")).propensity
    pd.testing.assert_series_equal(again, found)
    # correct within a fold: flipping one row's o moves others, not the map that it gets
    row = table.index[table.observed == 0][0]
    flipped = table.assign(observed=table.observed.where(table.index != row, 1))
    moved = repair("propensity", flipped).propensity
    assert abs(moved[row] - found[row]) < 0.02


def test_a_series_follows_its_index_whatever_the_order_of_the_pairs():
    table = distorted(1, 40)
    shuffled = table.sample(frac=1.0, random_state=2)
    found = repair(table.propensity, shuffled.drop(columns="propensity")).propensity
    assert found.index.equals(shuffled.index)
    pd.testing.assert_series_equal(found, repair("propensity", shuffled).propensity)
    with pytest.raises(upo.InputError, match=r"propensities is a Series .* and pairs has"):
        repair(table.propensity.add_prefix("row"), shuffled)


def test_a_sample_with_weights_is_repaired_for_all_that_it_stands_for():
    table = sampled(distorted(2), 2)
    found = repair("propensity", table)
    total = (found.propensity * table.weight).sum()
    assert total == pytest.approx((table["observed"] * table.weight).sum(), rel=0.1)
    assert found.after.n_found < found.before.n_found


@pytest.mark.slow
def test_in_most_of_100_small_worlds_nothing_is_left_to_find():
    clean, floors = 0, []
    for seed in range(100):
        found = repair("propensity", distorted(seed, 60))
        clean += found.after.n_found == 0
        floors += [bins.ece / bins.null_mean for bins in found.after.bins]
    assert clean >= 90  # 40 of 42 measured
    assert np.quantile(floors, 0.9) <= 1.7  # with some 250 observed pairs in each


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "at least 2"),
        ({"propensities": [0.5]}, "a number for each of the"),
        ({"propensities": "p"}, "no column 'p'"),
        ({"features": ["height"]}, "no column height"),
        ({"features": 3}, "features must be a name or a list of names"),
        ({"propensities": ["high"] * 400}, "or a number for each row, got list of something"),
        ({"propensities": [[0.5], [0.5, 0.5]]}, "or a number for each row, got list of something"),
    ],
)
def test_wrong_input_ends_in_a_sentence(settings, message):
    with pytest.raises(upo.InputError, match=message):
        repair(**{"propensities": "propensity", "pairs": distorted(0, 20), **settings})
