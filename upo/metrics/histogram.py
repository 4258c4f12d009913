"""Histogram of propensities over all pairs and over observed ones, with the size of the weights."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from upo.metrics.base import ReplicaMetric
from upo.metrics.checks import BINARY, PROBABILITY, WEIGHT


class HistogramCounts(NamedTuple):
    """``counts_all`` and ``counts_observed`` ``[R, K]``, and the effective sample size ``[R]``."""

    counts_all: Tensor
    counts_observed: Tensor
    effective_sample_size: Tensor


class PropensityHistogram(ReplicaMetric):
    """Counts of propensities between fixed edges, and (sum w)^2 / sum w^2 of w = 1 / p over O.

    Args:
        edges: ``[K + 1]`` increasing; the first is 0 and the last 1.
        p_min: Lower clip applied before dividing.
        **kwargs: ``replicas`` and the arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = None
    counts_all: Tensor
    counts_observed: Tensor
    weights: Tensor

    def __init__(self, edges: Tensor, p_min: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.edges, self.p_min = edges.double(), p_min
        self._counts: tuple[Tensor, Tensor] | None = None
        self.add_arguments(self.edges, p_min)
        self.add_sum("counts_all", len(edges) - 1)
        self.add_sum("counts_observed", len(edges) - 1)
        self.add_sum("weights", 2)

    def update(self, p_hat: Tensor, observed: Tensor, weight: Tensor | None = None) -> None:
        """Add pairs: unclipped propensities, observed 0 or 1, pairs that each row stands for."""
        p, o, w = self.read(
            p_hat=(p_hat, PROBABILITY), observed=(observed, BINARY), weight=(weight, WEIGHT)
        )
        p, o, w = p.double(), o.double(), w.double()
        edges = self.edges.to(p.device)
        index = torch.bucketize(p, edges[1:-1], right=True)
        empty = torch.zeros(p.shape[0], len(edges) - 1, dtype=torch.float64, device=p.device)
        self.counts_all = self.counts_all + empty.scatter_add(1, index, w.contiguous())
        self.counts_observed = self.counts_observed + empty.scatter_add(1, index, w * o)
        inverse = o * w / p.clamp(min=self.p_min)
        sums = torch.stack([inverse.sum(-1), (inverse**2).sum(-1)], dim=-1)
        self.weights = self.weights + sums

    def compute(self) -> Tensor:
        """Effective sample size."""
        self._counts = (self.counts_all.clone(), self.counts_observed.clone())
        return self.per_replica(self.weights[:, 0] ** 2 / self.weights[:, 1])

    def histogram(self) -> HistogramCounts:
        """Counts between the edges, over all ranks; synchronises like ``compute``."""
        size = self.compute()
        assert self._counts is not None  # set by compute
        return HistogramCounts(*self._counts, size)
