"""The models of this package as scikit-learn estimators; ``docs/sklearn.md`` shows them in use.

Needs scikit-learn (``pip install upo[sklearn]``). X is a table of two columns, the user's and the
item's id, whatever they are called; ids are text or whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.utils import check_array, check_consistent_length, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "upo.sklearn needs scikit-learn; install it: pip install upo[sklearn]."
    ) from error

from upo.api import fit
from upo.errors import InputError
from upo.fitted import Fitted
from upo.propensity import Propensity

USER, ITEM, RATING, OBSERVED = "user", "item", "rating", "observed"
Array = np.ndarray[Any, Any]


class _OfPairs(BaseEstimator):  # type: ignore[misc]
    """An estimator whose X are pairs of ids."""

    model_: Fitted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        tags.target_tags.required = True
        tags.target_tags.one_d_labels = True
        return tags

    def _pairs(self, X: Any, *, reset: bool) -> pd.DataFrame:  # noqa: N803
        """X as a frame of users and items."""
        if not hasattr(X, "columns"):
            X = check_array(X, dtype=None)  # noqa: N806
        validate_data(self, X, reset=reset, skip_check_array=True)
        if X.shape[1] != 2:
            raise InputError(
                f"X has {X.shape[1]} feature(s), and {type(self).__name__} needs 2: the id of the "
                "user and that of the item."
            )
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
        if not len(frame):
            raise InputError("X has 0 sample(s), and at least 1 is needed.")
        return frame.set_axis([USER, ITEM], axis=1).reset_index(drop=True)

    def _known(self, X: Any) -> pd.DataFrame:  # noqa: N803
        check_is_fitted(self)
        return self._pairs(X, reset=False)


class Recommender(_OfPairs):
    """Debiased predictions of ``upo.fit``.

    Args:
        estimator: A name of ``conf/estimator``, as in ``upo.fit``.
        label_threshold: Ratings of at least this are positive.
        target: ``positive`` (probabilities) or what else ``upo.fit`` predicts of ratings.
        seeds: A count or a list of seeds, whose mean predicts.
        tune: Trials of a search before, or None.
        progress: Draw progress bars.
        overrides: Further settings of ``upo.fit`` by dotted key.

    Attributes:
        model_: The fitted model, for ``recommend``, ``propensity`` and the rest.
        n_features_in_: 2.
        feature_names_in_: What X calls the user and the item, where it does.
    """

    def __init__(
        self,
        estimator: str | None = None,
        *,
        label_threshold: float = 3.0,
        target: str = "positive",
        seeds: Any = 1,
        tune: int | None = None,
        progress: bool = False,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.estimator = estimator
        self.label_threshold = label_threshold
        self.target = target
        self.seeds = seeds
        self.tune = tune
        self.progress = progress
        self.overrides = overrides

    def fit(self, X: Any, y: Any) -> Recommender:  # noqa: N803
        """Fit to a log.

        Args:
            X: ``[n, 2]`` user and item of each observed pair.
            y: ``[n]`` its rating.

        Raises:
            InputError: If the log or a setting is wrong.
        """
        if y is None:
            raise InputError("Recommender requires y to be passed, but the target y is None.")
        pairs = self._pairs(X, reset=True)
        ratings = column_or_1d(y, dtype=np.float64, warn=True)
        check_consistent_length(pairs, ratings)
        self.model_ = fit(
            pairs.assign(**{RATING: ratings}),
            estimator=self.estimator,
            label_threshold=self.label_threshold,
            target=self.target,
            seeds=self.seeds,
            tune=self.tune,
            progress=self.progress,
            overrides=dict(self.overrides or {}),
        )
        return self

    def predict(self, X: Any) -> Array:  # noqa: N803
        """``[n]`` prediction of each pair, P(positive rating) by default."""
        pairs = self._known(X)
        return self.model_.predict(pairs).to_numpy()

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """``[n, 2]`` probabilities of a negative and of a positive rating."""
        pairs = self._known(X)
        positive = self.model_.predict_proba(pairs).to_numpy()
        return np.stack([1 - positive, positive], axis=1)

    def recommend(self, users: Any, k: int = 10, *, exclude_seen: bool = True) -> pd.DataFrame:
        """The best ``k`` items of each user, as ``upo.Fitted.recommend`` gives them."""
        check_is_fitted(self)
        return self.model_.recommend(users, k, exclude_seen=exclude_seen)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """AUC of the labels that ratings make; R squared of predicted ratings.

        On rows of a biased log both are biased, too; ``upo.evaluate`` corrects for that.
        """
        found, ratings = self.predict(X), column_or_1d(y, dtype=np.float64)
        if self.target == "rating":
            return float(r2_score(ratings, found))
        return float(roc_auc_score(ratings >= self.label_threshold, found))


class PropensityClassifier(ClassifierMixin, _OfPairs):  # type: ignore[misc]
    """Propensities of ``upo.Propensity``: whether a pair is observed.

    Args:
        kind: A name of ``conf/propensity``, as in ``upo.Propensity``.
        calibrate: Correction on cells that copies did not see.
        folds: Parts of D for that.
        seeds: A count or a list of seeds, whose mean answers.
        progress: Draw progress bars.
        overrides: Further settings by dotted key.

    Attributes:
        classes_: Both values of y; the second is taken for observed.
        model_: The fitted model.
        n_features_in_: 2.
        feature_names_in_: What X calls the user and the item, where it does.
    """

    def __init__(
        self,
        kind: str = "upo",
        *,
        calibrate: str = "none",
        folds: int = 5,
        seeds: Any = 1,
        progress: bool = False,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.calibrate = calibrate
        self.folds = folds
        self.seeds = seeds
        self.progress = progress
        self.overrides = overrides

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Any, y: Any) -> PropensityClassifier:  # noqa: N803
        """Fit to the pairs of D.

        Args:
            X: ``[n, 2]`` user and item of every pair that could have been observed.
            y: ``[n]`` two values, of which the larger means observed: 0 and 1.

        Raises:
            InputError: If the pairs or a setting are wrong.
        """
        if y is None:
            raise InputError(
                "PropensityClassifier requires y to be passed, but the target y is None."
            )
        pairs = self._pairs(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(pairs, y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise InputError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}: y has {len(self.classes_)} class(es); give 1 where a pair "
                "was observed and 0 where it was not."
            )
        learner = Propensity(
            self.kind,
            calibrate=self.calibrate,
            folds=self.folds,
            seeds=self.seeds,
            progress=self.progress,
            observed=OBSERVED,
            overrides=dict(self.overrides or {}),
        )
        self.model_ = learner.fit(pairs.assign(**{OBSERVED: labels})).model
        return self

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """``[n, 2]`` probabilities of not being observed and of being observed."""
        pairs = self._known(X)
        p = self.model_.propensity(pairs).to_numpy()
        return np.stack([1 - p, p], axis=1)

    def predict(self, X: Any) -> Array:  # noqa: N803
        """``[n]`` the likelier of both classes."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])
