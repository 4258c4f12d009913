"""Calibration, balance, weights and segments against the metrics and against simulation."""

import numpy as np
import pandas as pd
import pytest
import torch
from auditing_tables import sampled, true_table, with_columns

import upo.metrics
from upo.audit.balance import balance, feature_columns
from upo.audit.calibration import RULES, calibration
from upo.audit.pairs import Names, read_pairs
from upo.audit.segments import segment_counts, segmentations
from upo.audit.weights import clip_table, weight_summary
from upo.functional.diagnostics import ece
from upo.functional.propensity import bin_index

TABLE = with_columns(true_table(0), 0)


def read(table):
    return read_pairs(table, Names(), None, "pairs")


@pytest.fixture(params=["every pair", "sampled"], scope="module")
def pairs(request):
    return read(TABLE if request.param == "every pair" else sampled(TABLE, 1))


def tensors(pairs, *names):
    return [torch.from_numpy(getattr(pairs, name)) for name in names]


@pytest.mark.parametrize("rule", RULES)
def test_the_ece_is_that_of_the_metric(pairs, rule):
    metric = upo.metrics.ExpectedCalibrationError(10, rule)
    metric.update(*tensors(pairs, "p", "observed", "weight"))
    found = calibration(pairs, rule, 10, 0)
    assert found.ece == pytest.approx(float(metric.compute()), rel=1e-9)
    points = metric.reliability()
    np.testing.assert_allclose(found.p_hat, points.p_hat[0], rtol=1e-9)
    np.testing.assert_allclose(found.observed, points.observed[0], rtol=1e-9)
    assert found.debiased == pytest.approx(max(0, found.ece - found.null_mean))


@pytest.mark.parametrize("rule", RULES)
def test_the_null_of_the_ece_is_that_of_drawn_tables(rule):
    rng = np.random.default_rng(0)
    found = calibration(read(TABLE), rule, 10, 0)
    p = torch.tensor(TABLE.propensity.to_numpy(copy=True))
    index = bin_index(p, 10, rule)
    drawn = [float(ece(p, torch.from_numpy(rng.random(len(p))) < p, index, 10)) for _ in range(200)]
    error = np.std(drawn) / np.sqrt(200)
    assert found.null_mean == pytest.approx(np.mean(drawn), abs=4 * error)
    # the density at the quantile of 200 draws gives it an error of about 2.1 of the mean's
    assert found.null_95 == pytest.approx(np.quantile(drawn, 0.95), abs=4 * 2.1 * error)


def test_the_bmse_is_that_of_the_metric(pairs):
    w = pairs.weight / pairs.total
    columns = []
    for _, x in feature_columns(pairs):
        centred = x - (w * x).sum()
        columns.append(centred / np.sqrt((w * centred**2).sum()))
    metric = upo.metrics.BalancedMeanSquaredError()
    p, o, weight = tensors(pairs, "p", "observed", "weight")
    metric.update(p, o, torch.from_numpy(np.stack(columns, 1)), weight)
    found = balance(pairs)
    assert np.square(found.after).sum() == pytest.approx(float(metric.compute()), rel=1e-9)


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_statistics_have_unit_variance_at_the_true_propensities(keep):
    rng = np.random.default_rng(2)
    counts, balances, signs = [], [], []
    for draw in range(150):
        o = (rng.random(len(TABLE)) < TABLE.propensity).astype(int)
        table = TABLE.assign(observed=o)
        pairs = read(sampled(table, draw, keep) if keep < 1 else table)
        whole, bins = list(segmentations(pairs, 5))[:2]
        tests = [segment_counts(pairs, s, kind="segment") for s in (whole, bins)]
        counts.append(tests[0].z[0])
        signs.append((tests[0].observed / tests[0].expected - 1)[0])
        balances.append(balance(pairs).set_index("feature").z)
    # the sd of a standard deviation of 150 normal draws is 0.058, of their mean 0.082
    assert np.std(counts) == pytest.approx(1, abs=4 * 0.058)
    assert np.mean(counts) == pytest.approx(0, abs=4 * 0.082)
    assert np.mean(signs) == pytest.approx(0, abs=4 * np.std(signs) / np.sqrt(150))
    z = pd.DataFrame(balances)
    assert np.abs(z.std() - 1).max() < 4.5 * 0.058  # the worst of 13 features
    assert np.abs(z.mean()).max() < 4.5 * 0.082


def test_the_weights_tail_by_hand():
    table = pd.DataFrame(
        {
            "user": [1, 1, 2, 2],
            "item": [1, 2, 1, 2],
            "observed": [1, 1, 1, 0],
            "propensity": [0.5, 0.25, 0.125, 0.5],
        }
    )
    pairs = read(table)
    found = weight_summary(pairs)
    assert found["effective_sample_size"] == pytest.approx(14**2 / (4 + 16 + 64))
    assert found["largest_share"] == found["top_1_percent_share"] == pytest.approx(8 / 14)
    assert (found["max"], found["mean"], found["sum_over_pairs"]) == (8, 14 / 3, 3.5)
    clips = clip_table(pairs, 0.25).set_index("p_min")
    assert clips.loc[0.0, "mass"] == 1
    row = clips.loc[0.25]
    assert (row.observed_clipped, row.all_clipped, row.max_weight) == (1 / 3, 1 / 4, 4)
    assert row.effective_sample_size == pytest.approx(100 / 36)
    assert row.mean_weight_change == pytest.approx(10 / 14 - 1)
    assert row.mass == pytest.approx((3 + 0.5) / 4)


def test_segments_say_whose_they_are_and_cover_every_pair(pairs):
    for segmentation in segmentations(pairs, 10):
        tests = segment_counts(pairs, segmentation, kind="segment")
        assert tests.rows.sum() == len(pairs)
        assert tests.expected.sum() == pytest.approx((pairs.weight * pairs.p).sum())
    names = [x for s in segmentations(pairs, 10) for x in s.labels]
    assert {"all pairs", "users with region=B"} <= set(names)
    assert any(name.startswith("items with noise_3 in (") for name in names)
    assert any(name.startswith("users with mean propensity above") for name in names)
