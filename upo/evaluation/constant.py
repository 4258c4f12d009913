"""The constant prediction beside the model: what a run is worth.

The constant of a replica is the mean label of its training rows. Its AUC is one half.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.evaluation.mar import MarSet, blocks
from upo.pairs import PairSpace

# Predictions [R, N], labels and, where not every row counts, a mask, both [N] or [R, N].
Predicted = tuple[Tensor, Tensor, Tensor | None]
_EPS = torch.finfo(torch.float64).eps  # as in upo.metrics.LogLoss


class Comparison(NamedTuple):
    """Mean log-loss of the model and of the constant on the same rows; ``[R]`` float64 each.

    Attributes:
        model: Of the model.
        constant: Of the constant.
        error: Standard error of their difference, paired row by row; NaN below two rows.
    """

    model: Tensor
    constant: Tensor
    error: Tensor

    @property
    def columns(self) -> dict[str, Tensor]:
        """The values by result column."""
        return {
            "val_log_loss": self.model,
            "val_constant_log_loss": self.constant,
            "val_gain_error": self.error,
        }


def training_mean(space: PairSpace) -> Tensor:  # [R] float64
    """Mean label of each replica's training rows; the same on every rank."""
    labels = space.labels.double()
    total = labels.sum().expand(space.replicas).clone()
    for lo, hi in blocks(0, space.n_held, space.replicas):
        total -= labels[space.held_rows(lo, hi)].sum(-1)
    return total / space.n_train


def constant_columns(
    mar: MarSet, space: PairSpace, include: Tensor | None = None
) -> dict[str, Tensor]:
    """Log-loss and MSE of the constant on the test rows, by result column.

    Args:
        mar: The test rows.
        space: The pair space.
        include: ``[R, N]`` bool rows that each replica reads; all by default.
    """
    c = training_mean(space)
    mask = torch.ones(1, len(mar), device=c.device) if include is None else include
    rows, positive = mask.double().sum(-1), (mask * mar.labels).double().sum(-1)
    share = positive / rows
    safe = c.clamp(_EPS, 1 - _EPS)
    return {
        "constant_log_loss": -share * safe.log() - (1 - share) * torch.log1p(-safe),
        "constant_mse": share * (1 - c) ** 2 + (1 - share) * c**2,
    }


@torch.no_grad()
def compare(rows: Callable[[], Iterable[Predicted]], space: PairSpace) -> Comparison:
    """The model against the constant on this rank's share of some rows, exact over all ranks.

    The rows are visited twice: the spread is summed about the mean that the first visit found.

    Args:
        rows: Gives them, block by block; called twice.
        space: The pair space.
    """
    c = training_mean(space).unsqueeze(-1)
    sums = torch.zeros(3, space.replicas, dtype=torch.float64, device=c.device)
    for f, labels, mask in rows():
        w = _weight(f, mask)
        model, constant = _cross_entropy(f, labels), _cross_entropy(c.expand_as(f), labels)
        sums += torch.stack([w.sum(-1), (w * model).sum(-1), (w * constant).sum(-1)])
    n, model, constant = sum_across_ranks(sums)
    model, constant = model / n, constant / n
    gain = (constant - model).unsqueeze(-1)
    scatter = torch.zeros_like(n)
    for f, labels, mask in rows():
        gap = _cross_entropy(c.expand_as(f), labels) - _cross_entropy(f, labels) - gain
        scatter += (_weight(f, mask) * gap.square()).sum(-1)
    variance = sum_across_ranks(scatter) / torch.where(n > 1, n - 1, torch.nan)
    return Comparison(model, constant, (variance / n).sqrt())


def _weight(f: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(f) if mask is None else mask.to(f.dtype).expand_as(f)


def _cross_entropy(f: Tensor, labels: Tensor) -> Tensor:
    f, y = f.clamp(_EPS, 1 - _EPS), labels.double()
    return -y * f.log() - (1 - y) * torch.log1p(-f)
