"""Classes for scikit-learn: its own checks, and its tools on pairs of ids."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from api_world import ROOT, TEST, TRAIN, short
from sklearn.base import clone
from sklearn.calibration import calibration_curve
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from upo import InputError
from upo.sklearn import PropensityClassifier, Recommender

# few steps on a small world: the models are worth nothing here
pytestmark = pytest.mark.filterwarnings(
    "ignore::upo.UselessModelWarning",
    "ignore::upo.UselessWeightsWarning",
    "ignore::upo.UnseenIdsWarning",
)
FIT = {
    "estimator.stages.propensity": {"epochs": 1, "steps": 2},
    "estimator.stages.refine": {"epochs": 1, "steps": 2},
    "trainer.accelerator": "cpu",
}
DEBIAS = {**FIT, "estimator.stages.debias.epochs": 1}
NAIVE = {"estimator.stages.debias.epochs": 1, "trainer.accelerator": "cpu"}
X, RATINGS = TRAIN[["user", "item"]], TRAIN.rating
GRID = pd.MultiIndex.from_product([X.user.unique(), X["item"].unique()], names=["user", "item"])
PAIRS = GRID.to_frame(index=False)
SEEN = GRID.isin(pd.MultiIndex.from_frame(X)).astype(int)

WIDTH = "X is a pair of ids, and the check gives it another number of columns"
IDS = "the check makes ids of coordinates: there is no nearness to learn, or there are four pairs"
WRONG_WIDTH = (
    *("fit_score_takes_y", "dont_overwrite_parameters", "n_features_in_after_fitting"),
    *("positive_only_tag_during_fit", "estimators_dtypes", "dtype_object", "pipeline_consistency"),
    *("estimators_nan_inf", "estimators_pickle", "f_contiguous_array_estimator"),
    *("methods_sample_order_invariance", "methods_subset_invariance", "fit2d_1sample"),
    *("dict_unchanged", "fit2d_predict1d"),
)
CLASSIFIED = (
    *("classifiers_one_label", "classifiers_regression_target", "supervised_y_2d"),
    "classifier_not_supporting_multiclass",
)


def impossible(estimator):
    """Checks that cannot apply, and why."""
    reasons = dict.fromkeys(WRONG_WIDTH, WIDTH)
    if isinstance(estimator, PropensityClassifier):
        reasons |= dict.fromkeys(CLASSIFIED, WIDTH)
        reasons |= dict.fromkeys(("classifiers_classes", "classifiers_train"), IDS)
    return {f"check_{name}": reason for name, reason in reasons.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        PropensityClassifier("additive", overrides=FIT),
        Recommender("ips", label_threshold=1, overrides={**DEBIAS, "dataset.duplicates": "mean"}),
    ],
    expected_failed_checks=impossible,
)
def test_what_scikit_learn_asks_of_an_estimator(estimator, check):
    check(estimator)


def test_a_recommender_is_the_fit_of_upo():
    model = Recommender("ips", seeds=[3], overrides=DEBIAS).fit(X, RATINGS)
    expected = short(estimator="ips", seeds=[3], overrides=DEBIAS)
    np.testing.assert_array_equal(model.predict(TEST[["user", "item"]]), expected.predict(TEST))
    both = model.predict_proba(X)
    np.testing.assert_allclose(both.sum(1), 1)
    np.testing.assert_array_equal(both[:, 1], model.predict(X))
    assert list(model.feature_names_in_) == ["user", "item"]
    assert model.n_features_in_ == 2
    assert 0 <= model.score(X, RATINGS) <= 1
    assert list(model.recommend(["u01"], 2)) == ["user", "item", "score", "rank"]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_arrays_of_ids_are_pairs_too():
    model = Recommender("naive", overrides=NAIVE)
    named = model.fit(X, RATINGS).predict(X)
    model.fit(X.to_numpy(), RATINGS.to_numpy())
    np.testing.assert_array_equal(model.predict(X.to_numpy()), named)
    renamed = X.rename(columns={"user": "who", "item": "what"})
    np.testing.assert_array_equal(model.fit(renamed, RATINGS).predict(renamed), named)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X)
    numbers = X.apply(lambda column: column.str[1:].astype(int)).to_numpy()
    np.testing.assert_allclose(model.fit(numbers, RATINGS).predict(numbers), named, atol=1e-6)


def test_a_classifier_of_propensities_answers_for_both_classes():
    model = PropensityClassifier("additive", overrides=FIT).fit(PAIRS, SEEN)
    p = model.predict_proba(PAIRS)
    np.testing.assert_allclose(p.sum(1), 1)
    assert p[:, 1].mean() == pytest.approx(SEEN.mean(), rel=0.2)
    assert model.score(PAIRS, SEEN) >= 0.75
    share, said = calibration_curve(SEEN, p[:, 1], n_bins=3)
    assert len(share) == len(said)
    words = PropensityClassifier("additive", overrides=FIT).fit(
        PAIRS, np.where(SEEN, "seen", "absent")
    )
    assert words.classes_.tolist() == ["absent", "seen"]
    assert set(words.predict(PAIRS)) <= {"absent", "seen"}
    np.testing.assert_array_equal(words.predict_proba(PAIRS), p)


def test_parameters_are_told_set_and_copied():
    model = Recommender("ips", overrides={"estimator.weighting.p_min": 0.1})
    assert model.get_params()["overrides"] == {"estimator.weighting.p_min": 0.1}
    other = clone(model).set_params(estimator="naive", seeds=2)
    assert (other.estimator, other.seeds) == ("naive", 2)
    assert model.estimator == "ips"
    assert "estimator='ips'" in repr(model)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_tools_of_scikit_learn_take_them():
    found = GridSearchCV(
        Recommender("naive", overrides=NAIVE),
        {"label_threshold": [3, 4]},
        cv=2,
        refit=False,
        error_score="raise",
    )
    found.fit(X, RATINGS)
    assert found.best_params_["label_threshold"] in (3, 4)
    piped = make_pipeline(FunctionTransformer(), PropensityClassifier("additive", overrides=FIT))
    scores = cross_val_score(piped, PAIRS, SEEN, cv=2, scoring="neg_log_loss", error_score="raise")
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (
            Recommender(),
            X.assign(more=1),
            RATINGS,
            r"X has 3 feature\(s\), and .* needs 2",
        ),
        (Recommender(), X.head(0), RATINGS.head(0), "0 sample"),
        (Recommender(), X, RATINGS.head(3), "inconsistent numbers of samples"),
        (Recommender(), X, None, "requires y to be passed"),
        (PropensityClassifier(), X, None, "requires y to be passed"),
        (PropensityClassifier(), X, np.ones(len(X)), r"y has 1 class\(es\)"),
        (PropensityClassifier(), X, np.arange(len(X)) % 3, "Only binary classification"),
        (PropensityClassifier(), X, RATINGS / 7, "Unknown label type"),
    ],
)
def test_wrong_input_ends_in_a_sentence(model, x, y, message):
    with pytest.raises(ValueError, match=message):
        model.fit(x, y)
    assert issubclass(InputError, ValueError)


def test_without_scikit_learn_it_is_said():
    code = "import sys; sys.modules['sklearn.base'] = None\nimport upo.sklearn"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "upo.sklearn needs scikit-learn; install it: pip install upo[sklearn]." in done.stderr


def test_the_page_runs():
    page = (ROOT / "docs" / "sklearn.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    code = code.replace('"ips", seeds=3', '"naive", overrides=NAIVE')
    code = code.replace('Classifier("additive")', 'Classifier("additive", overrides=FIT)')
    exec(code, {"log": TRAIN, "pairs": PAIRS.assign(observed=SEEN), "NAIVE": NAIVE, "FIT": FIT})
