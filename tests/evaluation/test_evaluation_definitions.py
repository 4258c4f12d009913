"""The four diagnostics in both definitions, against sums written out from the definitions."""

import pytest
import torch
from worlds import make_estimator

from upo.data.interactions import LabelRule
from upo.data.rating_data import RatingData
from upo.data.semisynthetic import make_semisynthetic
from upo.data.semisynthetic_world import SemiSyntheticWorld, classes_by_share
from upo.data.synthetic import SyntheticWorld, make_synthetic
from upo.errors import InputError
from upo.evaluation.diagnostics import Diagnostics, parse_definitions
from upo.evaluation.mar import MarSet
from upo.models.bins import Bins
from upo.models.estimator import Estimator
from upo.models.factorization import MatrixFactorization
from upo.models.imputation import PseudoLabel
from upo.models.oracle import OraclePropensity
from upo.models.weighting import ClippedPropensity
from upo.pairs import PairSpace

N_USERS, N_ITEMS = 40, 30
# float32 networks in front of float64 sums: both sides read the same logits
CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def study(p=0.5):
    matrix = torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(3))
    world = SemiSyntheticWorld(classes_by_share(matrix), N_USERS, N_ITEMS, p=p, test_share=0.6)
    return make_semisynthetic(world, "study")


def space_of(data, seeds=(0, 1)):
    train = data.train
    labels = train.labels(data.label_rule)
    sizes = train.n_users, train.n_items
    return PairSpace(train.keys, labels, *sizes, list(seeds), cells=data.cells, truth=data.truth)


def oracle_of(space):
    networks = {
        "prediction": MatrixFactorization(space.sizes, dim=3, purpose="prediction"),
        "propensity": OraclePropensity(space.sizes),
    }
    return Estimator(
        space,
        networks,
        form=PseudoLabel(),
        bins=Bins(),
        weighting=ClippedPropensity(p_min=1e-6, relative=False),
    )


def measured(data, estimator, definition):
    return Diagnostics(data, MarSet(data, 5), definition=definition).measure(estimator)


def on_test_pairs(data, estimator):
    """Everything that the definitions speak of, on the test pairs: [R, n] or [n]."""
    users, items = data.test.users, data.test.items
    pairs = estimator.space.pairs_at(data.test.keys.expand(2, -1), len(data.test))
    truth = data.truth
    with torch.no_grad():
        f_logit = estimator.logit("prediction", pairs)
        return {
            "p_hat": estimator.propensity(pairs).double(),
            "clipped": estimator.p_hat(pairs).double(),
            "f": torch.sigmoid(f_logit).double(),
            "e": estimator.form.error(f_logit, truth.label(users, items).expand(2, -1)).double(),
            "e_hat": estimator.form.imputed(f_logit, estimator.logit("imputation", pairs)).double(),
            "p": truth.propensity(users, items),
            "r": truth.preference(users, items),
            "y": data.test.ratings,
        }


def equal_mass_ece(p_hat, target, bins=10):
    """One replica: sorted rows cut at the quantiles, right-closed."""
    edges = torch.quantile(p_hat, torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
    index = (p_hat[:, None] > edges).sum(-1)
    gaps = [(target - p_hat)[index == m].sum().abs() for m in range(bins)]
    return sum(gaps) / len(p_hat)


def test_correct_scores_indicators_by_their_expectation_on_held_out_pairs():
    data = study()
    estimator = make_estimator(space_of(data), p_min=0.05)
    v, found = on_test_pairs(data, estimator), measured(data, estimator, "correct")
    p, p_hat, n = v["p"], v["p_hat"], len(data.test)
    expected = {
        "ece": torch.stack([equal_mass_ece(row, p) for row in p_hat]),
        # without features of users and items the prediction is what is balanced
        "bmse": ((p / p_hat - (1 - p) / (1 - p_hat)) * v["f"]).mean(-1).square(),
        "dr_bias": ((p - v["clipped"]) * (v["e"] - v["e_hat"]) / v["clipped"]).mean(-1).abs(),
        "dr_variance": (p * (1 - p) * ((v["e"] - v["e_hat"]) / v["clipped"]) ** 2).sum(-1) / n**2,
    }
    assert found.columns.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.values[name], value, **CLOSE)


def test_snips_is_measured_as_itself_and_what_is_neither_not_at_all():
    data = study()
    estimator = make_estimator(space_of(data), p_min=0.05)
    v = on_test_pairs(data, estimator)
    p, weight = v["p"], 1 / v["clipped"]
    share = p * weight / (p * weight).sum(-1, keepdim=True)
    level = (share * v["e"]).sum(-1)  # what SNIPS tends to
    estimator.estimate = "self_normalized"
    found = measured(data, estimator, "correct").values
    torch.testing.assert_close(found["dr_bias"], (level - v["e"].mean(-1)).abs(), **CLOSE)
    spread = p * (1 - p) * (weight * (v["e"] - level[:, None])) ** 2
    variance = spread.sum(-1) / (p * weight).sum(-1) ** 2
    torch.testing.assert_close(found["dr_variance"], variance, **CLOSE)
    estimator.estimate = "inverse_propensity"  # the imputation is not a part of it
    found = measured(data, estimator, "correct").values
    bias = ((p - v["clipped"]) * v["e"] * weight).mean(-1).abs()
    torch.testing.assert_close(found["dr_bias"], bias, **CLOSE)
    estimator.estimate = None
    assert measured(data, estimator, "correct").values.keys() == {"ece", "bmse"}


def test_table1_compat_scores_labels_codes_and_predictions():
    data = study()
    estimator = make_estimator(space_of(data), p_min=0.05)
    v, found = on_test_pairs(data, estimator), measured(data, estimator, "table1_compat")
    p, p_hat, y, n = v["p"], v["p_hat"], v["y"], len(data.test)
    gap = v["r"] - v["f"]
    expected = {
        "ece_table1": torch.stack([equal_mass_ece(row, y) for row in p_hat]),
        "bmse_table1": ((y / p_hat - (1 - y) / (1 - p_hat)) * v["f"]).mean(-1).square(),
        "dr_bias_table1": ((p - p_hat) * gap / p_hat).mean(-1).abs(),
        "dr_variance_table1": (p * (1 - p) * (gap / p_hat) ** 2).sum(-1) / n**2,
    }
    assert found.columns.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.columns[name], value, **CLOSE)
    # no column serves both definitions
    assert not found.columns.keys() & measured(data, estimator, "correct").columns.keys()


def test_the_true_propensities_are_perfect_in_one_definition_only():
    data = study()
    estimator = oracle_of(space_of(data))
    correct = measured(data, estimator, "correct").values
    for name, bound in (("ece", 1e-7), ("bmse", 1e-12), ("dr_bias", 1e-7)):  # float32 logits
        assert (correct[name] < bound).all(), name
    assert (correct["dr_variance"] > 0).all()
    compat = measured(data, estimator, "table1_compat").values
    gap = (data.test.ratings - data.truth.propensity(data.test.users, data.test.items)).mean()
    assert gap > 0.1
    assert (compat["ece"] >= gap - 1e-6).all()
    assert (compat["bmse"] > 0.01).all()


def test_without_held_out_cells_all_of_d_is_measured():
    data = make_synthetic(SyntheticWorld(N_USERS, N_ITEMS, density=0.2), 4)
    estimator = oracle_of(space_of(data))
    found = measured(data, estimator, "correct")
    assert found.reliability.weight.sum(-1).tolist() == [N_USERS * N_ITEMS] * 2
    assert (found.values["ece"] < 1e-7).all()
    held = study()
    again = measured(held, oracle_of(space_of(held)), "correct")
    assert again.reliability.weight.sum(-1).tolist() == pytest.approx([len(held.test)] * 2)
    # the histogram is of the propensities that divide, those of the cells trained on
    assert again.histogram.counts_all.sum(-1).tolist() == [len(held.cells)] * 2
    assert again.histogram.counts_observed.sum(-1).tolist() == [len(held.train)] * 2


def test_what_is_not_simulated_has_no_published_definition():
    data = study()
    log = RatingData("log", data.train, data.test, LabelRule(1.0))
    estimator = make_estimator(space_of(log))
    with pytest.raises(InputError, match="table1_compat needs a dataset with true propensities"):
        measured(log, estimator, "table1_compat")
    assert torch.isfinite(measured(log, estimator, "correct").values["ece"]).all()


def test_definitions_are_parsed():
    assert parse_definitions("table1_compat") == ["table1_compat"]
    assert parse_definitions(["correct", "table1_compat"]) == ["correct", "table1_compat"]
    for wrong in ("right", [], ["correct", "x"]):
        with pytest.raises(InputError, match="one or a list of correct, table1_compat"):
            parse_definitions(wrong)
