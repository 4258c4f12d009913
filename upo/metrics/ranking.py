"""Ranking metrics over all rows seen; definitions and the rule for ties in the functional module.

Every row is kept until ``compute``, so a user's rows may be split over batches and ranks in any
way. ``include``, ``[N]`` or ``[R, N]``, marks the rows that each replica reads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from upo.functional.ranking import NoPositives, RankingSums, auc, ranking_sums
from upo.metrics.base import ReplicaMetric
from upo.metrics.checks import BINARY, NOT_NAN


class _RowsMetric(ReplicaMetric):
    """Keeps scores, labels and the include mask of every row."""

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("scores")
        self.add_rows("labels", dtype=torch.int8)
        self.add_rows("include", dtype=torch.int8)

    def _keep(self, scores: Tensor, labels: Tensor, include: Tensor | None) -> None:
        rows = self.read(
            scores=(scores, NOT_NAN), labels=(labels, BINARY), include=(include, BINARY)
        )
        for name, values in zip(("scores", "labels", "include"), rows, strict=True):
            self.keep(name, values)


class AUC(_RowsMetric):
    """Area under the ROC curve over all rows pooled, ties counting one half.

    NaN for a replica whose rows lack a class.

    Args:
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def update(self, scores: Tensor, labels: Tensor, include: Tensor | None = None) -> None:
        """Add rows: any scores but NaN, labels 0 or 1."""
        self._keep(scores, labels, include)

    def compute(self) -> Tensor:
        """The area over all rows pooled; NaN if a class is missing."""
        return self.per_replica(
            auc(self.rows("scores"), self.rows("labels"), self.rows("include").bool())
        )


class PerUserMetric(_RowsMetric):
    """Keeps users too; subclasses turn sums over users into a value."""

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k
        self.add_rows("users", dtype=torch.int64, shared=True)

    def update(
        self, scores: Tensor, labels: Tensor, users: Tensor, include: Tensor | None = None
    ) -> None:
        """Add rows: any scores but NaN, labels 0 or 1, users ``[N]`` integers."""
        n = scores.shape[-1] if scores.ndim else 0
        if users.shape != (n,) or users.is_floating_point() or users.dtype == torch.bool:
            raise ValueError(
                f"{type(self).__name__} needs users as integers of shape {(n,)}, the same for all "
                f"replicas, got {users.dtype} of shape {tuple(users.shape)}."
            )
        self._keep(scores, labels, include)
        self.keep("users", users)

    def compute(self) -> Tensor:
        """The value over all users."""
        return self.per_replica(self.of(self._sums()))

    @abstractmethod
    def of(self, sums: RankingSums) -> Tensor:  # [R]
        """The value that follows from the sums over users."""

    def _sums(self) -> RankingSums:
        return ranking_sums(
            self.rows("scores"),
            self.rows("labels"),
            self.rows("users"),
            self.k,
            self.rows("include").bool(),
        )


class NDCG(PerUserMetric):
    """Mean NDCG@K over users.

    Args:
        k: Cutoff K.
        no_positives: A user without positives counts as 1 (``"one"``, the habit of the field) or
            is left out (``"skip"``).
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def __init__(self, k: int, no_positives: NoPositives = "one", **kwargs: Any) -> None:
        super().__init__(k, **kwargs)
        if no_positives not in get_args(NoPositives):
            raise ValueError(
                f"no_positives must be one of {get_args(NoPositives)}, got {no_positives!r}."
            )
        self.no_positives: NoPositives = no_positives

    def of(self, sums: RankingSums) -> Tensor:
        """The mean over users."""
        return sums.mean_ndcg(self.no_positives)


class PrecisionAtK(PerUserMetric):
    """Mean over users of hits among the first K, divided by K.

    Args:
        k: Cutoff K.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def of(self, sums: RankingSums) -> Tensor:
        """The mean of hits / K over users."""
        return sums.mean_precision()


class RecallAtK(PerUserMetric):
    """Mean over users of the share of positives among the first K; 0 without positives.

    Args:
        k: Cutoff K.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def of(self, sums: RankingSums) -> Tensor:
        """The mean of hits / positives over users."""
        return sums.mean_recall()


class F1AtK(PerUserMetric):
    """Harmonic mean of the mean precision@K and the mean recall@K.

    Args:
        k: Cutoff K.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def of(self, sums: RankingSums) -> Tensor:
        """The harmonic mean of mean precision and mean recall."""
        return sums.f1()


class SeveralAtK(PerUserMetric):
    """Several of these metrics from rows that are kept and ranked once; their values ``[M, R]``.

    Args:
        metrics: M of them, at one cutoff.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def __init__(self, metrics: Sequence[PerUserMetric], **kwargs: Any) -> None:
        super().__init__(metrics[0].k, **kwargs)
        self.each = tuple(metrics)

    def of(self, sums: RankingSums) -> Tensor:
        """The values of all."""
        return torch.stack([metric.of(sums) for metric in self.each])

    def compute(self) -> Tensor:
        """The values over all users."""
        values = self.of(self._sums())
        self.per_replica(values[0])
        self._result_shape = (len(values), *self._result_shape)
        return values.reshape(self._result_shape)
