"""A fitted estimator of the Python API: predict, recommend, save and load."""

import copy
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm.auto import tqdm

from upo.core.console import signals_first
from upo.core.given import flag, path_of, whole
from upo.core.optim import part_of_stack
from upo.errors import InputError
from upo.fitted.answers import Answers
from upo.fitted.content import members
from upo.fitted.export import Scale, embeddings, export
from upo.fitted.file import read_model, write_model
from upo.fitted.onnx_graph import to_onnx
from upo.fitted.pair_table import asked_pairs, pair_table, unseen_pairs
from upo.fitted.settings import as_library, resolved
from upo.fitted.unseen import Unseen
from upo.fitted.update import later_space, settings_of
from upo.models.estimator import Estimator
from upo.pairs.target import Rating
from upo.runs.crossfit import OutOfFold
from upo.runs.updating import updated
from upo.tables.frames import check_nulls, to_arrow
from upo.tables.ids import Places, check_columns
from upo.tables.numbering import Ids

OBSERVED = "observed"


class NotFittedError(InputError, AttributeError):
    """What was asked for was not fitted; also an ``AttributeError``, as in scikit-learn."""


class Fitted:
    """A trained estimator that answers for the ids of the table it was fitted on.

    Of several seeds the mean answers; ``average=False`` gives a column for each. An id that neither
    train nor test had gets a mean: an unseen user the item's mean over the users of train, an
    unseen item the user's mean over the items of train, both unseen the mean over both (each over
    4,096 evenly spread ones where train has more). Every answer says in ``attrs["unseen"]`` what
    share of its rows has an unseen id (``"unseen_users"`` and ``"unseen_items"`` apart), and
    ``upo.UnseenIdsWarning`` is issued where most have one.

    Attributes:
        estimator: The networks.
        metrics: A row for each seed, columns as in ``results.csv``; NaN where nothing was measured.
        columns: What pair tables call the user and the item.
        user_ids: Ids by index.
        item_ids: Ids by index.
        config: The estimator's configuration.
        target: What predictions are of: ``positive``, ``rating``, or ``observed``.
        about: How it was made, for its card: ``data``, ``protocol``, ``command``.
        out_of_fold: Propensities of pairs by what had not seen them, if it was calibrated.
    """

    def __init__(
        self,
        estimator: Estimator,
        config: DictConfig,
        *,
        metrics: pd.DataFrame,
        columns: tuple[str, str],
        user_ids: Ids,
        item_ids: Ids,
        params: Mapping[str, Any] | None = None,
        target: str = "positive",
        about: Mapping[str, str] | None = None,
        out_of_fold: OutOfFold | None = None,
    ) -> None:
        self.target, self.about = target, dict(about or {})
        self.out_of_fold = out_of_fold
        self.answers = Answers(
            estimator, answer="propensity" if target == OBSERVED else "prediction"
        )
        self.estimator, self.config, self.metrics = estimator, config, metrics
        self.columns, self.user_ids, self.item_ids = columns, user_ids, item_ids
        self._places = Places(user_ids), Places(item_ids)
        self._params = None if params is None else dict(params)

    @property
    def seeds(self) -> list[int]:
        """One for each column of ``average=False``."""
        return [int(seed) for seed in self.estimator.space.seeds]

    @property
    def n_observed(self) -> int:
        """Different pairs of the log that it was fitted to."""
        return self.estimator.space.n_observed

    @property
    def has_propensity(self) -> bool:
        """Whether the estimator learned a propensity."""
        return self.estimator.has_propensity

    def __repr__(self) -> str:
        space = self.estimator.space
        size = f"{space.n_users:,} users x {space.n_items:,} items"
        return f"<upo.Fitted {self.config.name}: {size}, seeds {self.seeds}>"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of ``upo.fit`` without the tables: ``upo.fit(log, **model.get_params())``.

        Args:
            deep: Copy the overrides, too.

        Raises:
            NotFittedError: If the model comes from a run folder, not from ``upo.fit``.
        """
        if self._params is None:
            raise NotFittedError(
                "This model comes from a run of train.py, not from upo.fit; its settings are in "
                ".hydra/config.yaml of the run folder."
            )
        return copy.deepcopy(self._params) if deep else dict(self._params)

    def predict(self, pairs: Any, *, average: bool = True) -> "pd.Series[float] | pd.DataFrame":
        """P(positive rating) of each pair, debiased.

        With ``target="rating"`` the rating, clipped to the scale of the log; with
        ``target="observed"`` P(observed).

        Args:
            pairs: A data frame with the user and the item column.
            average: The mean over the seeds as a series; otherwise a column for each seed.

        Raises:
            InputError: If a column is missing or has gaps.
        """
        return self._answer(self.answers.answer, pairs, average, name="prediction")

    def predict_proba(
        self, pairs: Any, *, average: bool = True
    ) -> "pd.Series[float] | pd.DataFrame":
        """``predict``, where that is of probabilities.

        Raises:
            InputError: If the model predicts ratings.
        """
        if self.target == "rating":
            raise InputError(
                "This model predicts ratings (target='rating'), no probabilities; use predict, or "
                "fit with target='positive'."
            )
        return self.predict(pairs, average=average)

    def propensity(self, pairs: Any, *, average: bool = True) -> "pd.Series[float] | pd.DataFrame":
        """P(observed) of each pair as learned, that is before the clip of the weights.

        Args:
            pairs: A data frame with the user and the item column.
            average: The mean over the seeds as a series; otherwise a column for each seed.

        Raises:
            InputError: If a column is missing or has gaps.
            NotFittedError: If the estimator learns no propensity (also an ``InputError``).
        """
        self.need_propensity()
        return self._answer("propensity", pairs, average)

    def pairs(
        self, unobserved: int = 100_000, *, seed: int = 0, out_of_fold: bool = False
    ) -> pd.DataFrame:
        """The pairs of the log and a uniform sample of the others: what ``upo.audit`` takes.

        Args:
            unobserved: Most pairs drawn outside the log; each stands for as many as its weight.
            seed: Of the sample.
            out_of_fold: The propensity of each pair by a copy, and a map, that have not seen it: of
                a calibrated model, which has trained such copies. Otherwise the model's own, which
                knows the log by heart and looks better, or worse, than it is for other rows.

        Returns:
            Columns user, item (as in the fitted table), observed (0 or 1), propensity in (0, 1),
            and weight.

        Raises:
            InputError: If ``unobserved`` is below 1.
            NotFittedError: If the estimator learns no propensity, or nothing is known out of fold
                (also an ``InputError``).
        """
        self.need_propensity()
        unobserved, seed = whole("unobserved", unobserved, 1, 100_000), whole("seed", seed, 0, 0)
        if not flag("out_of_fold", out_of_fold):
            found = asked_pairs(self.answers, unobserved, seed)
        elif self.out_of_fold is None:
            raise NotFittedError(
                "Nothing is known out of fold: fit with propensity.calibrate=isotonic (calibrate= "
                "of upo.Propensity), and ask the model of that fit, or its file."
            )
        else:
            found = unseen_pairs(self.estimator.space, self.out_of_fold, unobserved, seed)
        return pair_table(*found, self.columns, self.user_ids, self.item_ids)

    def need_propensity(self) -> None:
        """Refuse in a sentence where none was learned.

        Raises:
            NotFittedError: If the estimator learns no propensity.
        """
        if not self.has_propensity:
            raise NotFittedError(
                f"estimator {self.config.name} learns no propensity; fit one that does, for "
                "example estimator='ips'."
            )

    def recommend(
        self, users: Any, k: int = 10, *, exclude_seen: bool = True, progress: bool = False
    ) -> pd.DataFrame:
        """The ``k`` items of the highest mean prediction for each user, best first.

        Only items that train has are recommended: nothing was learned about others. A user with
        fewer than ``k`` of them left gets fewer rows. Users are ranked in batches; beside the
        answer, about 130,000 pairs are held at once, or the items of one user if those are more.

        Args:
            users: Ids, a single one, or a frame with the column of users, in which each counts
                once; unseen ones get the items that please on average.
            k: Items for each user, at least 1.
            exclude_seen: Leave out the pairs that train has.
            progress: Draw a progress bar.

        Returns:
            Columns user, item (as in the fitted table), score, rank (from 1). With
            ``target="rating"`` a score is the rating before it is clipped to the scale.

        Raises:
            InputError: If ``k`` is below 1 or a user is missing.
        """
        k = whole("k", k, 1, 10)
        exclude_seen = flag("exclude_seen", exclude_seen)
        user, item = self.columns
        if isinstance(users, Mapping):  # columns by name, as predict takes them
            users = to_arrow(users, None, "users")
        if hasattr(users, "columns"):  # a frame, whose elements are names of columns
            check_columns(users, [user], "users")
            asked = to_arrow(users, [user], "users").to_pandas().drop_duplicates()
        else:
            single = isinstance(users, str) or not isinstance(users, Iterable)
            asked = pd.DataFrame({user: [users] if single else list(users)})
        table = to_arrow(asked, [user], "users")
        check_nulls(table, "users")
        # every user once, and all unseen ones together, as they get the same
        found_users = self._places[0].find(table[user])
        unseen = Unseen.of(found_users)
        unseen.warn("users", stacklevel=3)
        places, row = torch.unique(found_users, return_inverse=True)
        parts = torch.split(places, self.answers.users_at_once)
        bar = tqdm(parts, desc="users", disable=not progress)
        found = [self.answers.best(part, k, exclude_seen) for part in bar]
        scores, items = (torch.cat(part) for part in zip(*found, strict=True))
        scores, items = scores[row], items[row]
        asked_row, place = torch.nonzero(scores > -math.inf, as_tuple=True)
        answer = pd.DataFrame(
            {
                user: asked[user].to_numpy()[asked_row.numpy()],
                item: self.item_ids[items[asked_row, place].numpy()],
                "score": scores[asked_row, place].numpy(),
                "rank": place.numpy() + 1,
            }
        )
        answer.attrs.update(unseen.shares)
        return answer

    def update(self, log: Any, *, epochs: int = 5, progress: bool = False) -> "Fitted":
        """A model that goes on from this one with ratings that came later; this one stays.

        Every stage of the fit runs again, from the parameters it has come to, on the rows of
        ``log``, for ``epochs`` epochs each. New users and items get rows of their tables, which
        start as a fit of the same seeds would start them. Pairs of the first log count as observed
        still. A fit on both logs differs: it reads the old ratings again, selects an epoch, and
        takes the scale of ratings from both. ``docs/api.md`` has more.

        Args:
            log: Ratings, with the columns of the fit: those that came later, or these and any of
                before.
            epochs: At least 1; nothing is held out, and the last one is kept.
            progress: Draw progress bars.

        Returns:
            The model, whose ``metrics`` hold seeds alone: nothing was measured.

        Raises:
            InputError: If the log or ``epochs`` is wrong, or the model is not of ``upo.fit``.
        """
        epochs, progress = whole("epochs", epochs, 1, 5), flag("progress", progress)
        config = settings_of(self._params, self.target)
        assert self._params is not None  # settings_of has looked
        ids = self.user_ids, self.item_ids
        space, (users, items) = later_space(log, self.estimator, ids, self._params, config)
        with as_library(), part_of_stack(*members(self.metrics, self.seeds)):
            estimator = updated(config, space, self.estimator, epochs, progress=progress)
        return Fitted(
            estimator,
            resolved(config),
            metrics=self.metrics[["seed"]],
            columns=self.columns,
            user_ids=users,
            item_ids=items,
            params=self._params,
            target=self.target,
            about={
                **self.about,
                "protocol": f"update of {epochs} epochs on {space.n_train:,} rows",
            },
        )

    def save(self, folder: str | Path, *, audit: Any = None) -> Path:
        """Write the model as one file, atomically: tensors and plain values, nothing executable.

        Beside it lies ``model_card.md``: the data, how it was made, what it is worth.

        Args:
            folder: Where; it is made if it is not there.
            audit: What ``upo.audit`` found, for the card.

        Returns:
            The file of the model.

        Raises:
            InputError: If the ids are neither text nor whole numbers, or the folder cannot be
                written.
        """
        return write_model(
            path_of("folder", folder),
            self.estimator,
            self.config,
            metrics=self.metrics,
            columns=self.columns,
            user_ids=self.user_ids,
            item_ids=self.item_ids,
            params=self._params,
            target=self.target,
            about=self.about,
            out_of_fold=self.out_of_fold,
            verdict=None if audit is None else str(audit.verdict),
        )

    def embeddings(
        self, side: str, *, of: str = "prediction", seed: int | None = None
    ) -> pd.DataFrame:
        """Embeddings by id, with which the score of a pair can be computed anywhere.

        A logit is the product of the user's and the item's numbered columns, summed, plus both
        ``bias``; the user's has the global term in it. Of a perceptron (``backbone=ncf``) they are
        the inputs, and there is no ``bias``. The logit of an additive propensity is the sum of the
        ``bias``, and there is no numbered column.

        Args:
            side: ``user`` or ``item``.
            of: ``prediction`` or ``propensity``.
            seed: Whose; the first one's if not given (the mean of answers is no mean of logits).

        Raises:
            InputError: If an argument is unknown, or the answer is more than tables.
        """
        place = 1 if side == "item" else 0
        ids = (self.user_ids, self.item_ids)[place]
        return embeddings(self.estimator, side, ids, self.columns[place], of, seed)

    def export(self, folder: str | Path) -> Path:
        """Write all that an answer needs as ``arrays.npz`` and ``model.json``, without torch.

        ``docs/export.md`` has the few lines of numpy that score with them.

        Args:
            folder: Where; it is made if it is not there.

        Returns:
            The folder.

        Raises:
            InputError: If the predictions are more than tables, or the folder cannot be written.
        """
        answers = ["propensity"] if self.target == OBSERVED else ["prediction"]
        if self.has_propensity and self.target != OBSERVED:
            answers.append("propensity")
        return export(
            path_of("folder", folder),
            self.estimator,
            answers=tuple(answers),
            name=str(self.config.name),
            columns=self.columns,
            ids=(self.user_ids, self.item_ids),
            scale=self._scale,
        )

    def to_onnx(self, path: str | Path, *, of: str | None = None) -> Path:
        """Write an answer as an ONNX graph from places of users and items to the mean over seeds.

        The inputs ``user_index`` and ``item_index`` are places in ``user_ids`` and ``item_ids``,
        int64 of any length; the output has the name of the answer. Needs the package ``onnx``.

        Args:
            path: The file.
            of: ``prediction`` or ``propensity``; what ``predict`` answers if not given.

        Returns:
            The file.

        Raises:
            InputError: If the answer is more than tables, onnx is not installed, or the file cannot
                be written.
        """
        wanted = of or ("propensity" if self.target == OBSERVED else "prediction")
        return to_onnx(
            path_of("path", path),
            self.estimator,
            of=wanted,
            name=str(self.config.name),
            scale=self._scale,
        )

    @property
    def _scale(self) -> Scale | None:
        """Of predicted ratings."""
        target = self.estimator.space.target
        return target.numbers if isinstance(target, Rating) else None

    def values(self, what: str, pairs: Any) -> Tensor:
        """``[R, N]`` float64 answers for the pairs of a frame.

        Args:
            what: ``prediction`` or ``propensity``.
            pairs: A data frame with the user and the item column.

        Raises:
            InputError: If a column is missing or has gaps.
        """
        return self.answers.values(what, *self.places(pairs))

    def places(self, pairs: Any) -> tuple[Tensor, Tensor]:
        """``[N]`` indices of the users and of the items of a frame; -1 where one is unseen.

        Args:
            pairs: A data frame with the user and the item column.

        Raises:
            InputError: If a column is missing or has gaps.
        """
        user, item = self.columns
        check_columns(pairs, [user, item], "pairs")
        table = to_arrow(pairs, [user, item], "pairs")
        check_nulls(table, "pairs")
        return self._places[0].find(table[user]), self._places[1].find(table[item])

    def _answer(
        self, what: str, pairs: Any, average: bool, name: str | None = None
    ) -> "pd.Series[float] | pd.DataFrame":
        average = flag("average", average)
        places = self.places(pairs)
        unseen = Unseen.of(*places)
        values = self.answers.values(what, *places)
        unseen.warn("pairs", stacklevel=4)
        index = pairs.index if isinstance(pairs, pd.DataFrame) else None
        answer: pd.Series[float] | pd.DataFrame
        if average:
            answer = pd.Series(values.mean(0).numpy(), index=index, name=name or what)
        else:
            answer = pd.DataFrame(values.T.numpy(), index=index, columns=self.seeds)
        answer.attrs.update(unseen.shares)
        return answer


def load(folder: str | Path, *, trusted: bool = False) -> Fitted:
    """Read what ``Fitted.save`` wrote; nothing in the file is executed.

    Args:
        folder: The folder, or the file in it.
        trusted: Also build networks that are not of upo itself; their code is then run.

    Raises:
        InputError: If the file is missing, damaged, or of another schema.
    """
    with signals_first():
        return Fitted(**read_model(folder, trusted=trusted))
