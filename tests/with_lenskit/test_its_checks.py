"""LensKit's own checks of components, on a log of ours in the place of its MovieLens."""

from typing import ClassVar

import numpy as np
import pytest
from lenskit.testing import BasicComponentTests, ScorerTests
from lenskit_world import ADDITIVE, IPS, LOG, dataset

from upo.lenskit import PropensityLookup, UPOConfig, UPOScorer

pytestmark = [
    # few steps on a small world: the models are worth nothing here
    pytest.mark.filterwarnings("ignore::upo.UselessModelWarning"),
    pytest.mark.filterwarnings("ignore::upo.UselessWeightsWarning"),
    # of its own checks
    pytest.mark.filterwarnings("ignore:user_items is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Class-scoped fixtures:pytest.PytestRemovedIn10Warning"),
]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def ml_ds():
    return dataset()


@pytest.fixture(scope="module")
def ml_ratings():
    return LOG


class TestScorer(BasicComponentTests, ScorerTests):
    """What LensKit asks of a scorer."""

    component = UPOScorer
    config = UPOConfig(**IPS)
    configs: ClassVar = [IPS, {"target": "rating", "seeds": [3, 5], "tune": 2, "unseen": "mean"}]
    # on data of its own, with thresholds for it
    test_batch_prediction_accuracy = test_batch_top_n_accuracy = None


class TestScorerOfAll(ScorerTests):
    component = UPOScorer
    config = UPOConfig(**IPS, unseen="mean")
    can_score = "all"
    test_batch_prediction_accuracy = test_batch_top_n_accuracy = None
    test_train_recommend = test_run_with_doubles = None  # as above


class TestLookup(BasicComponentTests):
    component = PropensityLookup
    configs: ClassVar = [{**ADDITIVE, "calibrate": "isotonic", "folds": 3}]
