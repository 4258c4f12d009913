"""Pseudo values of the test metrics, user by user; their mean over users is the metric."""

from typing import Any

import torch
from torch import Tensor

from upo.functional.per_user import auc_values, f1_values, ndcg_values, row_mean_values
from upo.functional.pointwise import cross_entropy
from upo.functional.ranking import user_rankings
from upo.metrics.checks import FINITE
from upo.metrics.ranking import PerUserMetric

_EPS = torch.finfo(torch.float64).eps  # as in LogLoss


def kept(target: str = "positive") -> tuple[str, ...]:
    """What ``UserValues`` holds, in order, of a target."""
    return "auc", "ndcg", "f1", "log_loss" if target == "positive" else "mse"


class UserValues(PerUserMetric):
    """AUC, NDCG@K, F1@K and log-loss as ``[4, R, U]``, of all users seen, in the order of ids.

    NaN where a replica reads no row of a user. Definitions: :mod:`upo.functional.per_user`. Scores
    are probabilities, unless rows come with errors: the mean of these stands in the place of the
    log-loss then.

    Args:
        k: Cutoff K.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(k, **kwargs)
        self.add_rows("errors")

    def update(
        self,
        scores: Tensor,
        labels: Tensor,
        users: Tensor,
        include: Tensor | None = None,
        *,
        errors: Tensor | None = None,
    ) -> None:
        """Add rows: as of the other metrics, and finite errors, the log-loss if not given."""
        super().update(scores, labels, users, include)
        if errors is None:
            f = scores.double().clamp(_EPS, 1 - _EPS)
            errors = cross_entropy(torch.logit(f), labels.double())
        self.keep("errors", *self.read(errors=(errors, FINITE)))

    def compute(self) -> Tensor:
        """The pseudo values."""
        f, labels, include = (self.rows(name) for name in ("scores", "labels", "include"))
        used, ids = include.bool(), self.rows("users")
        users, index = torch.unique(ids, return_inverse=True)
        each = user_rankings(f, labels, ids, self.k, used)
        values = torch.stack(
            [
                auc_values(f, labels, index, len(users), used),
                ndcg_values(each),
                f1_values(each, self.k),
                row_mean_values(self.rows("errors"), index, len(users), used),
            ]
        )
        self._result_shape = tuple(values.shape)
        return values

    def of(self, sums: Any) -> Tensor:
        """Not a function of sums over users."""
        raise NotImplementedError
