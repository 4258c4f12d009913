"""The constant prediction beside the model: what a run is worth.

The constant of a replica is the mean label, or rating, of its training rows. Its AUC is one half.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.evaluation.mar import MarSet, blocks
from upo.evaluation.scoring import SCORING
from upo.pairs import PairSpace

# Predictions [R, N], labels and, where not every row counts, a mask, both [N] or [R, N].
Predicted = tuple[Tensor, Tensor, Tensor | None]


class Comparison(NamedTuple):
    """Mean error of the model and of the constant on the same rows; ``[R]`` float64 each.

    Attributes:
        model: Of the model.
        constant: Of the constant.
        error: Standard error of their difference, paired row by row; NaN below two rows.
        judge: Name of the error.
    """

    model: Tensor
    constant: Tensor
    error: Tensor
    judge: str = "log_loss"

    @property
    def columns(self) -> dict[str, Tensor]:
        """The values by result column."""
        return {
            f"val_{self.judge}": self.model,
            f"val_constant_{self.judge}": self.constant,
            "val_gain_error": self.error,
        }


def training_mean(space: PairSpace) -> Tensor:  # [R] float64
    """Mean of each replica's training rows in the unit of predictions; the same on every rank."""
    labels = space.labels.double()
    total = labels.sum().expand(space.replicas).clone()
    for lo, hi in blocks(0, space.n_held, space.replicas):
        total -= labels[space.held_rows(lo, hi)].sum(-1)
    return space.target.decoded(total / space.n_train)


def constant_columns(
    mar: MarSet, space: PairSpace, include: Tensor | None = None
) -> dict[str, Tensor]:
    """The target's pointwise errors of the constant on the test rows, by result column.

    Args:
        mar: The test rows.
        space: The pair space.
        include: ``[R, N]`` bool rows that each replica reads; all by default.
    """
    c = training_mean(space)[:, None]
    # rows of one value weigh together: there are two labels, and few different ratings
    values, place = torch.unique(space.target.truth(mar.ratings), return_inverse=True)
    rows = c.new_ones(1, len(mar)) if include is None else include.double()
    weight = c.new_zeros(len(rows), len(values)).index_add_(1, place, rows)
    weight = (weight / weight.sum(-1, keepdim=True)).expand(space.replicas, -1)
    columns = {}
    for name, metric in SCORING[space.target.name].pointwise().items():
        metric.to(c.device).update(c.expand(-1, len(values)), values, weight)
        columns[f"constant_{name}"] = metric.compute()
    return columns


@torch.no_grad()
def compare(rows: Callable[[], Iterable[Predicted]], space: PairSpace) -> Comparison:
    """The model against the constant on this rank's share of some rows, exact over all ranks.

    The rows are visited twice: the spread is summed about the mean that the first visit found.

    Args:
        rows: Gives them, block by block; called twice.
        space: The pair space.
    """
    c, scoring = training_mean(space).unsqueeze(-1), SCORING[space.target.name]
    sums = torch.zeros(3, space.replicas, dtype=torch.float64, device=c.device)
    for f, labels, mask in rows():
        w = _weight(f, mask)
        model, constant = scoring.error(f, labels), scoring.error(c.expand_as(f), labels)
        sums += torch.stack([w.sum(-1), (w * model).sum(-1), (w * constant).sum(-1)])
    n, model, constant = sum_across_ranks(sums)
    model, constant = model / n, constant / n
    gain = (constant - model).unsqueeze(-1)
    scatter = torch.zeros_like(n)
    for f, labels, mask in rows():
        gap = scoring.error(c.expand_as(f), labels) - scoring.error(f, labels) - gain
        scatter += (_weight(f, mask) * gap.square()).sum(-1)
    variance = sum_across_ranks(scatter) / torch.where(n > 1, n - 1, torch.nan)
    return Comparison(model, constant, (variance / n).sqrt(), scoring.judge)


def _weight(f: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(f) if mask is None else mask.to(f.dtype).expand_as(f)
