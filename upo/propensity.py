"""``upo.Propensity``: propensities of a log without ratings; ``docs/propensities.md`` shows it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from upo.audit import Audit, audit
from upo.core.given import column_names, flag
from upo.core.seeds import parse_seeds
from upo.data.datamodule import InMemoryDataModule
from upo.data.observations import observations_from_frame
from upo.data.rating_data import RatingData
from upo.errors import InputError, UselessWeightsWarning
from upo.evaluation.overlap import weight_columns
from upo.fitted import Fitted, NotFittedError, load
from upo.fitted.model import OBSERVED
from upo.fitted.pair_table import with_columns
from upo.fitted.settings import as_library, composed_run, flat, plain, resolved
from upo.runs.experiment import Experiment
from upo.runs.remarks import useless_weights
from upo.tables.frames import to_arrow
from upo.tables.ids import Places, check_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = {"estimator.networks.prediction.dim": 1}  # it is not trained


class Propensity:
    """P(observed) of pairs, learned from what was observed; no rating is read.

    Args:
        kind: A name of ``conf/propensity`` that is learned before the prediction: ``upo``,
            ``additive``, ``fm`` (reads features, and answers for new ids by them), ...
        calibrate: Correction on cells that copies did not see: ``none``, ``isotonic``,
            ``histogram`` or ``gbdt``.
        folds: Parts of D for that, and for ``cross_fit``.
        seeds: A count, or a list of seeds; the mean of all answers.
        user: Name of the user column.
        item: Name of the item column.
        observed: Name of a column of 0 and 1, if the table lists the pairs of D, observed ones and
            others; without one, every row is an observed pair and D is users x items.
        progress: Draw progress bars.
        **overrides: Further settings, as in ``upo.fit``.
    """

    def __init__(
        self,
        kind: str = "upo",
        *,
        calibrate: str = "none",
        folds: int = 5,
        seeds: Any = 1,
        user: str = "user",
        item: str = "item",
        observed: str | None = None,
        progress: bool = False,
        **overrides: Any,
    ) -> None:
        self.kind, self.calibrate, self.folds, self.seeds = kind, calibrate, folds, seeds
        self.user, self.item, self.observed = user, item, observed
        self.progress, self.overrides = progress, overrides
        self._model: Fitted | None = None
        self._features: tuple[Any, Any] = (None, None)

    def __repr__(self) -> str:
        shown = f"{self.kind!r}, calibrate={self.calibrate!r}"
        return f"upo.Propensity({shown}){'' if self._model is None else ', fitted'}"

    def fit(self, log: Any, *, user_features: Any = None, item_features: Any = None) -> Propensity:
        """Learn from a table; ratings and other columns are not read. Returns itself.

        Args:
            log: A pandas, polars or pyarrow table with a user and an item in each row. Repeated
                pairs count once.
            user_features: A table with the user column and columns of numbers or categories, a row
                for every user.
            item_features: The same for items.

        Raises:
            InputError: If the table or a setting is wrong; the message says what and how to fix it.

        Warns:
            UselessWeightsWarning: If all propensities of the log are alike.
        """
        with _own_words():
            data, settings = self._asked(log, user_features, item_features)
            params = {"kind": self.kind, "calibrate": self.calibrate, "folds": self.folds}
            self._model = learned(
                data,
                settings,
                columns=(self.user, self.item),
                seeds=parse_seeds(self.seeds),
                progress=flag("progress", self.progress),
                params={"propensity": {**params, "observed": self.observed}},
            )
        self._features = user_features, item_features
        return self

    def cross_fit(
        self, log: Any, *, user_features: Any = None, item_features: Any = None
    ) -> pd.Series[float]:
        """P(observed) of each row of a log, by copies that did not see the row's part of D.

        D is cut into ``folds`` parts, by each seed's own order of the pairs; for each part a copy
        is trained on the others. The propensity itself stays as it is, fitted or not.

        Args:
            log: As in ``fit``, each pair once.
            user_features: As in ``fit``.
            item_features: As in ``fit``.

        Returns:
            The mean over the seeds, in the order of the rows, with their index.

        Raises:
            InputError: If the table or a setting is wrong, or lists the pairs of D.
        """
        if self.observed is not None:
            raise InputError(
                "cross_fit takes a log of observed pairs, and observed= names a column of pairs of "
                "both kinds; leave it out, or fit on the table and ask the fitted propensity."
            )
        data, settings = self._asked(log, user_features, item_features)
        numbers = parse_seeds(self.seeds)
        with _own_words(), as_library():
            found = _experiment(data, settings, None, numbers, self.progress).cross_fitted()
        table = to_arrow(log, [self.user, self.item], "the log")
        assert data.known_user_ids is not None  # frames always come with ids
        assert data.known_item_ids is not None
        users = Places(data.known_user_ids).find(table[self.user])
        items = Places(data.known_item_ids).find(table[self.item])
        row = torch.searchsorted(data.train.keys, users * data.train.n_items + items)
        index = log.index if isinstance(log, pd.DataFrame) else None
        return pd.Series(found.double().mean(0)[row].numpy(), index=index, name="propensity")

    def _asked(
        self, log: Any, user_features: Any, item_features: Any
    ) -> tuple[RatingData, dict[str, Any]]:
        """What a table says was observed, and the settings by dotted key."""
        column_names({"observed": self.observed}, user=self.user, item=self.item)
        names = [self.user, self.item, *([] if self.observed is None else [self.observed])]
        check_columns(log, names, "the log")
        data = observations_from_frame(
            log,
            user=self.user,
            item=self.item,
            observed=self.observed,
            user_features=user_features,
            item_features=item_features,
        )
        settings = {
            **flat(self.overrides),
            "propensity": self.kind,
            "propensity.calibrate": self.calibrate,
            "propensity.folds": self.folds,
        }
        if data.cells is not None:  # margins are those of users x items
            settings.setdefault("estimator.fit.start", "density")
        return data, {key: plain(value) for key, value in settings.items()}

    @property
    def fitted(self) -> bool:
        """Whether ``fit`` was called."""
        return self._model is not None

    @property
    def n_observed(self) -> int:
        """Pairs that the fitted model takes for observed."""
        return self.model.n_observed

    @property
    def model(self) -> Fitted:
        """The fitted model.

        Raises:
            NotFittedError: If nothing is fitted yet.
        """
        if self._model is None:
            raise NotFittedError("This upo.Propensity is not fitted; call .fit(log) first.")
        return self._model

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each seed: ``ece`` over D, and ``bmse`` where there are features."""
        return self.model.metrics

    def predict(self, pairs: Any, *, average: bool = True) -> pd.Series[float] | pd.DataFrame:
        """P(observed) of each pair of a table with the user and the item column."""
        return self.model.propensity(pairs, average=average)

    propensity = predict  # as of any fitted model

    def pairs(
        self, unobserved: int = 100_000, *, seed: int = 0, out_of_fold: bool = False
    ) -> pd.DataFrame:
        """The observed pairs and a sample of the others: what ``upo.audit`` takes.

        Arguments as in ``Fitted.pairs``.
        """
        return self.model.pairs(unobserved, seed=seed, out_of_fold=out_of_fold)

    def audit(
        self,
        unobserved: int = 100_000,
        *,
        user_features: Any = None,
        item_features: Any = None,
        out_of_fold: bool | None = None,
        **settings: Any,
    ) -> Audit:
        """The audit of these propensities over D, by features, too.

        Args:
            unobserved: Most pairs drawn outside the log.
            user_features: A table with a row for each user; that of ``fit`` if not given, which a
                saved model does not keep.
            item_features: The same for items.
            out_of_fold: Ask what has not seen the pair, see ``Fitted.pairs``; if not given, where
                the propensity is calibrated. Otherwise the audit asks the pairs that the propensity
                was fitted to: it finds what the fit left, and what is right for other rows may look
                wrong.
            **settings: As in ``upo.audit``.

        Raises:
            InputError: If a table or an argument is wrong.
        """
        if out_of_fold is None:
            out_of_fold = self.model.out_of_fold is not None
        pairs = self.pairs(unobserved, out_of_fold=out_of_fold)
        given = user_features, item_features
        for key, mine, known in zip(self.model.columns, given, self._features, strict=True):
            features = known if mine is None else mine
            if features is not None:
                pairs = with_columns(pairs, key, features)
        user, item = self.model.columns
        return audit(pairs, user=user, item=item, **settings)

    def save(self, folder: str | Path, *, audit: Any = None) -> Path:
        """Write the model and its card; ``upo.Propensity.load`` reads it."""
        return self.model.save(folder, audit=audit)

    @classmethod
    def load(cls, folder: str | Path, *, trusted: bool = False) -> Propensity:
        """Read what ``save`` wrote, or any model with a propensity.

        Raises:
            InputError: If there is no such model.
        """
        model = load(folder, trusted=trusted)
        model.need_propensity()
        user, item = model.columns
        found = (model._params or {}).get("propensity")
        own = found if isinstance(found, dict) else {}
        propensity = cls(**own, user=user, item=item, seeds=model.seeds)
        propensity._model = model
        return propensity


@contextmanager
def _own_words() -> Iterator[None]:
    """Sentences name the arguments of the class, not keys of the configuration."""
    try:
        yield
    except InputError as error:
        text = re.sub(r"\bpropensity\.(calibrate|folds)\b", r"\1", str(error))
        error.args = (re.sub(r"\bpropensity=(\w+)", r"kind='\1'", text),)
        raise


def learned(
    data: RatingData,
    settings: Mapping[str, Any],
    *,
    columns: tuple[str, str],
    seeds: list[int],
    progress: bool,
    params: dict[str, Any] | None,
    estimator: str | None = None,
) -> Fitted:
    """A model of which the propensity alone is trained, and which answers with it.

    Raises:
        InputError: If a setting is wrong.
    """
    with as_library():
        experiment = _experiment(data, settings, estimator, seeds, progress)
        config = experiment.config
        result = experiment.run_propensity()
    rows = [
        {"seed": seed, **{name: float(x[r]) for name, x in result.metrics.items()}}
        for r, seed in enumerate(result.seeds)
    ]
    weights = weight_columns(result.estimator)
    alike = {"effective_sample_size": float(weights["effective_sample_size"].max())}
    text = useless_weights([{**alike, "clip_share": 0.0}])
    if text is not None:
        warnings.warn(text, UselessWeightsWarning, stacklevel=4)
    user_ids, item_ids = data.known_user_ids, data.known_item_ids
    assert user_ids is not None  # frames always come with ids
    assert item_ids is not None
    return Fitted(
        result.estimator,
        resolved(config),
        metrics=pd.DataFrame(rows),
        columns=columns,
        user_ids=user_ids,
        item_ids=item_ids,
        params=params,
        target=OBSERVED,
        out_of_fold=result.out_of_fold,
    )


def _experiment(
    data: RatingData,
    settings: Mapping[str, Any],
    estimator: str | None,
    seeds: list[int],
    progress: bool,
) -> Experiment:
    """A run whose prediction is small, as it is not trained."""
    dim = next(iter(SMALL))
    config = composed_run(estimator, {**settings, "seeds": seeds, dim: SMALL[dim]})
    if config.estimator.get("weighting") is None:
        raise InputError(
            f"propensity={settings.get('propensity', 'none')} learns nothing; choose upo, additive "
            "or fm."
        )
    module = InMemoryDataModule(data, False, config.dataset.k)
    return Experiment(config, datamodule=module, progress=progress)
