"""Objectives of the prediction without a propensity, beside the naive one."""

from torch import Tensor

from upo.errors import InputError
from upo.functional.contrast import contrast_loss, imputed_loss
from upo.models.estimator import Estimator
from upo.pairs import Batch


class Contrast:
    """CVIB: the mean prediction on D against that on O.

    Args:
        alpha: Weight of the contrast.
        gamma: Weight of the confidence penalty.

    Raises:
        InputError: If a weight is negative.
    """

    replayable = True

    def __init__(self, *, alpha: float = 0.1, gamma: float = 0.01) -> None:
        for name, value in (("alpha", alpha), ("gamma", gamma)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} of the contrast must be at least 0, got {value}.")
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        rows, pairs = batch.rows, batch.pairs
        f_o, f_d = (estimator.logit("prediction", part) for part in (rows, pairs))
        return contrast_loss(estimator.errors(rows), f_o, f_d, self.alpha, self.gamma)


class ErrorImputation:
    """EIB: imputed errors wherever no rating is observed."""

    replayable = True

    reads = ("imputation",)

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The loss ``[R]``, with the graph to the prediction."""
        rows = batch.rows
        return imputed_loss(
            estimator.errors(rows),
            estimator.imputed(rows),
            estimator.imputed(batch.pairs),
            estimator.space.density,
        )
