"""The penalty on looked-up rows, which has the scale of the data whatever their size."""

from collections.abc import Mapping

import torch
from torch import Tensor

from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import TableGradient
from upo.core.optim import Hyper, per_replica, placed
from upo.errors import InputError
from upo.models.factorization_machine import FeatureColumns

Strengths = Mapping[str, Hyper]


class TablePenalty:
    r"""L2 penalty on the rows of tables that a batch looks up.

    .. math:: \mathrm{mean}_{batches}\,\mathrm{mean}_{(u,i)}\left[
        \lambda_{rows}(\|p_u\|^2+\|q_i\|^2)+\lambda_{biases}(b_u^2+b_i^2)\right]

    A loss that reads a batch of O and a batch of D, as the doubly robust ones do, has half the mean
    over either, whatever their sizes, so that one strength serves naive and doubly robust losses:
    on Coat .04 had the least held-out log-loss of .01, .02, .04, .08 for both; with the sum of the
    two means it was .02 for the doubly robust one, and .08 left it a constant. A batch counts if
    the loss has a gradient to what was looked up for it.

    Where the loss weighs the errors of rows, their penalties have the same weights: what is learned
    of an item that has few ratings of large weight, or many of small, is then as far from 0 as
    without weights. Unweighted, users and items whose rows weigh a tenth are penalised ten times:
    on MovieLens 100K (threshold 4, clip .5) AUC was .766 with and .771 without that for IPS, .767
    and .776 for DR; over six logs weighting had the lower held-out log-loss once converged.

    A row is penalised as often as it is looked up, as in the loss of Koren et al. (2009), eq. (5);
    with the optimiser's decay it would be penalised at every step, though the gradient of its data
    shrinks with the share of steps that see it.

    Feature columns of a factorisation machine count as looked up by every row as far as they are in
    it, :math:`\lambda_{rows}\sum_c x_c^2\|v_c\|^2+\lambda_{biases}\sum_c x_c^2 w_c^2`; what is
    added is its mean over the users (items) of the log, not of the batch.

    Only its gradient is computed: the logged losses do not contain it, as they do not contain the
    optimiser's decay.

    Args:
        strengths: ``rows``: :math:`\lambda_{rows}` of tables of width above 1; ``biases``:
            :math:`\lambda_{biases}` of tables of width 1. Each at least 0, by default 0; a number
            or one for each replica.
        replicas: R.

    Attributes:
        active: Whether there is one at all.

    Raises:
        InputError: If a name is unknown, or a strength negative or of the wrong length.
    """

    replayable = True

    def __init__(self, strengths: Strengths, replicas: int) -> None:
        unknown = set(strengths) - {"rows", "biases"}
        if unknown:
            raise InputError(
                f"penalty has no {', '.join(sorted(map(str, unknown)))}; it takes rows and biases, "
                "such as {rows: 0.01, biases: 0.01}."
            )
        self.rows = self._checked(strengths.get("rows", 0.0), replicas, "rows")
        self.biases = self._checked(strengths.get("biases", 0.0), replicas, "biases")
        self.active = any(not _is_zero(strength) for strength in (self.rows, self.biases))

    @staticmethod
    def _checked(value: Hyper, replicas: int, name: str) -> float | Tensor:
        strength = per_replica(value, replicas, f"penalty.{name}")
        values = torch.as_tensor(strength)
        if not bool(((values >= 0) & values.isfinite()).all()):
            raise InputError(
                f"penalty.{name} must be at least 0 and finite, got {value}; try 0.01."
            )
        return strength

    def add(
        self, table: ReplicaEmbedding, gradient: TableGradient, importance: Tensor | None = None
    ) -> None:
        """Add the penalty's gradient to that of a table.

        Args:
            table: The table.
            gradient: Of the loss, to which that of the penalty is added.
            importance: How much the loss weighs each row of O ``[R, B]``; 1 if not given.
        """
        strength = self.biases if table.dim == 1 else self.rows
        if gradient.looked_up and not _is_zero(strength):
            gradient.penalise(table.weight, strength, importance)

    def of_columns(self, columns: FeatureColumns) -> dict[int, Tensor]:
        """The penalty's gradients for feature columns, by the ``id`` of their parameter."""
        found = {}
        for weight, strength in (
            (columns.linear, self.biases),
            (columns.factors, self.rows),
        ):  # [R, d, 1 or k]
            if not _is_zero(strength):
                each = placed(strength, weight.device)
                each = each.view(-1, 1, 1) if isinstance(each, Tensor) else each
                found[id(weight)] = 2.0 * each * columns.mass[:, None] * weight.detach()
        return found


def _is_zero(strength: float | Tensor) -> bool:
    return isinstance(strength, float) and strength == 0.0
