"""On what data epochs and hyperparameters are chosen, and on what data the result is read."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.evaluation.constant import Predicted
from upo.evaluation.mar import MarSet, heldout_blocks, heldout_error
from upo.evaluation.scoring import SCORING
from upo.metrics.names import POINTWISE_OF, lower_is_better, measured_on_test
from upo.models.estimator import Estimator
from upo.pairs.uniform import user_order


class Protocol(ABC):
    """A selection protocol.

    Attributes:
        name: Written into every result.
        holdout: Share of the MNAR log held out from training.
        monitor: Metric that chooses epochs and hyperparameters.
        test_selected: Whether selection read the test set.
    """

    name: str
    holdout: float = 0.0
    monitor: str
    wanted: str | None = None  # a metric that was asked for
    test_selected = False
    mar: MarSet

    @property
    def label(self) -> str:
        """Name as it stands in results: test selection is never silent."""
        return f"{self.name} (test-selected)" if self.test_selected else self.name

    @property
    def sign(self) -> int:
        """1 where a lower ``monitor`` is better, -1 where a higher one is."""
        return 1 if lower_is_better(self.monitor) else -1

    def use(self, mar: MarSet, target: str = "positive") -> None:
        """Take the MAR sample into use.

        Args:
            mar: The sample.
            target: What predictions are of; where nothing else was asked for, its error judges.

        Raises:
            InputError: If the protocol needs one and there is none, or it judges by a metric that
                the target does not have.
        """
        self.mar = mar
        self.monitor = self.wanted or self._usual(target)
        known = [self.monitor] if self.wanted is None else measured_on_test(mar.k, target)
        if self.monitor not in known:
            raise InputError(
                f"protocol.monitor={self.monitor} is not measured with target={target}; known are "
                f"{', '.join(known)}."
            )

    def _usual(self, target: str) -> str:
        """The metric that chooses where none was asked for."""
        return SCORING[target].judge

    def held(self, data: RatingData) -> Tensor | None:
        """``[N]`` bool rows of the log that are held out, if they are not drawn by seed.

        Args:
            data: The dataset.
        """
        return None

    def lend(self, share: float, name: str) -> None:
        """Lend an estimator of this name the ratings of a share of the MAR users to learn from.

        Raises:
            InputError: If the protocol has none to lend.
        """
        if share:
            raise InputError(
                f"estimator={name} learns from ratings at random, which protocol={self.name} does "
                "not lend; add protocol=mar_holdout (half of its selecting users then teach), or "
                "choose another estimator."
            )

    @abstractmethod
    def validate(self, estimator: Estimator) -> dict[str, Tensor]:
        """Metrics on the selection data, ``[R]`` each, ``monitor`` among them."""

    def validation_rows(self, estimator: Estimator) -> Iterator[Predicted]:
        """Predictions and labels of the selection data, block by block: this rank's share."""
        mask = self._selecting(estimator)
        for pairs, rows in self.mar.blocks(estimator.space):
            truth = estimator.space.target.truth(self.mar.ratings[rows])
            yield estimator.predicted(pairs), truth, None if mask is None else mask[:, rows]

    def _selecting(self, estimator: Estimator) -> Tensor | None:
        """``[R, N]`` bool rows of the MAR sample that select; None for all."""
        return None

    def tested(self, estimator: Estimator) -> Tensor | None:
        """``[R, N]`` bool rows of the MAR sample on which results are read; None for all."""
        return None


class Holdout(Protocol):
    """Chooses by the error on a tenth of the MNAR log, drawn by seed; the test set is read once.

    The error is the log-loss, or the squared error of ratings.

    Args:
        name: Name in results.
        share: Held-out share in (0, 1).
        weighted: Weight held-out rows by the estimator's own inverse propensities.
    """

    monitor = SCORING["positive"].judge

    def __init__(
        self, *, name: str = "holdout", share: float = 0.1, weighted: bool = False
    ) -> None:
        self.name = name
        if not 0 < share < 1:
            raise InputError(f"protocol.share must lie in (0, 1), got {share}; try 0.1.")
        self.holdout, self.weighted = share, weighted

    def validate(self, estimator: Estimator) -> dict[str, Tensor]:
        """The error on held-out rows."""
        return {self.monitor: heldout_error(estimator, weighted=self.weighted)}

    def validation_rows(self, estimator: Estimator) -> Iterator[Predicted]:
        """Predictions and labels of the held-out rows."""
        for pairs, labels in heldout_blocks(estimator):
            yield estimator.predicted(pairs), labels, None


class TimeHoldout(Holdout):
    """Chooses by the error on the latest tenth of the log; what was before it trains.

    Ratings of one moment stay together, so that the share is met as nearly as moments allow.

    Args:
        name: Name in results.
        share: Held-out share in (0, 1).
        weighted: Weight held-out rows by the estimator's own inverse propensities.
    """

    def __init__(self, *, name: str = "time", share: float = 0.1, weighted: bool = False) -> None:
        super().__init__(name=name, share=share, weighted=weighted)

    def held(self, data: RatingData) -> Tensor:
        """The latest rows.

        Raises:
            InputError: If the log has no times, or one moment only.
        """
        times = data.train.times
        if times is None:
            raise InputError(
                f"protocol={self.name} holds out the latest ratings, and {data.name} has no times; "
                "give dataset.time=COLUMN (in Python time='COLUMN'), or use protocol=holdout."
            )
        moments = torch.unique(times)  # sorted
        if len(moments) < 2:
            raise InputError(
                f"protocol={self.name} holds out the latest ratings, and every rating has the time "
                f"{float(moments[0]):g}; use protocol=holdout."
            )
        # rows from each moment on, but the first, before which there is nothing
        later = len(times) - torch.searchsorted(times.sort().values, moments[1:])
        nearest = torch.argmin((later - self.holdout * len(times)).abs())
        latest: Tensor = times >= moments[1:][nearest]
        return latest


class MarHoldout(Protocol):
    """Chooses on the ratings of a share of the MAR users, drawn by seed; the other users test.

    Args:
        name: Name in results.
        share: Share of the MAR users that select, in (0, 1).
        monitor: Metric that chooses; None for the log-loss, or the RMSE of ratings.
    """

    lent = 0.0  # share of the users whose ratings an estimator learns from

    def __init__(
        self, *, name: str = "mar_holdout", share: float = 0.2, monitor: str | None = None
    ) -> None:
        self.name = name
        if not 0 < share < 1:
            raise InputError(f"protocol.share must lie in (0, 1), got {share}; try 0.2.")
        self.share, self.wanted = share, monitor
        self.monitor = monitor or SCORING["positive"].judge

    def use(self, mar: MarSet, target: str = "positive") -> None:
        """Take the MAR sample into use."""
        _require(mar, self.name)
        super().use(mar, target)

    def _usual(self, target: str) -> str:
        """The first of what is measured of the test rows."""
        return next(iter(POINTWISE_OF[target]))

    def lend(self, share: float, name: str) -> None:
        """Lend the ratings of a share of all MAR users, which select no more.

        Raises:
            InputError: If no selecting user is left.
        """
        if not 0 <= share < self.share:
            raise InputError(
                f"estimator.lent of {name} must be less than protocol.share={self.share}, the "
                f"users that select, got {share}; try half of it."
            )
        self.lent = share

    def _first(self, estimator: Estimator, share: float) -> Tensor:  # [R, N]
        """Rows of the first users by seed."""
        place, count = user_order(self.mar.users, estimator.space.seeds)
        return place < round(share * count)

    def _selecting(self, estimator: Estimator) -> Tensor:  # [R, N]
        """Rows of the users that select."""
        return self._first(estimator, self.share) & ~self._first(estimator, self.lent)

    def validate(self, estimator: Estimator) -> dict[str, Tensor]:
        """All test metrics on the selecting users."""
        return self.mar.measure(estimator, self._selecting(estimator))

    def tested(self, estimator: Estimator) -> Tensor:
        """Rows of the other users, the same whether some are lent or not."""
        return ~self._first(estimator, self.share)


class TestSelected(Protocol):
    """Chooses on the test set itself, as the published code of this field does.

    Results of this protocol are labelled ``test-selected`` everywhere.

    Args:
        name: Name in results.
        monitor: Metric that chooses.
    """

    __test__ = False  # not a test case, whatever its name
    test_selected = True

    def __init__(self, *, name: str = "paper", monitor: str = "auc") -> None:
        self.name = name
        self.monitor = self.wanted = monitor

    def use(self, mar: MarSet, target: str = "positive") -> None:
        """Take the MAR sample into use."""
        _require(mar, self.name)
        super().use(mar, target)

    def validate(self, estimator: Estimator) -> dict[str, Tensor]:
        """All metrics on the test set."""
        return self.mar.measure(estimator)


def _require(mar: MarSet, name: str) -> None:
    if not len(mar):
        raise InputError(
            f"protocol={name} selects on MAR ratings, and this dataset has none; "
            "use protocol=holdout or give a test set."
        )
