"""Measures an estimator: ranking on the MAR sample, and the four diagnostics over D.

Every rank measures its share of the rows; the metrics are exact for any sharding.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from upo import metrics
from upo.data.rating_data import RatingData, Truth
from upo.distributed import share
from upo.estimator import Estimator
from upo.functional.binning import equal_mass_edges
from upo.pairs import Pairs
from upo.sampling import EpochStream, Permutation, stream_key

BLOCK = 2**20  # pairs x replicas evaluated at once
EXACT_PAIRS = 2**21  # |D| up to which diagnostics visit every pair
SAMPLE_PAIRS = 2**20  # pairs of D \ O sampled beyond
PROBE_PAIRS = 2**17  # pairs whose propensities fix the bins of the ECE


class MarSet(nn.Module):
    """The MAR sample on the device.

    Args:
        data: The dataset; its ``test`` must be there.
        k: Cutoff of the ranking metrics.
    """

    users: Tensor
    items: Tensor
    labels: Tensor

    def __init__(self, data: RatingData, k: int) -> None:
        super().__init__()
        self.k = k
        test = data.test
        empty = torch.zeros(0, dtype=torch.int64)
        self.register_buffer("users", empty if test is None else test.users, persistent=False)
        self.register_buffer("items", empty if test is None else test.items, persistent=False)
        labels = torch.zeros(0) if test is None else test.labels(data.label_rule)
        self.register_buffer("labels", labels, persistent=False)

    def __len__(self) -> int:
        return len(self.labels)

    def measure(
        self, estimator: Estimator, include: Tensor | None = None
    ) -> dict[str, Tensor]:  # name -> [R] float64
        """Ranking metrics, log-loss and MSE of the predictions.

        Args:
            estimator: The networks.
            include: ``[R, N]`` bool rows that each replica reads; all by default.
        """
        replicas, k = estimator.space.replicas, self.k
        ranked: dict[str, Metric] = {
            "auc": metrics.AUC(),
            f"ndcg@{k}": metrics.NDCG(k),
            f"f1@{k}": metrics.F1AtK(k),
            f"precision@{k}": metrics.PrecisionAtK(k),
            f"recall@{k}": metrics.RecallAtK(k),
        }
        pointwise: dict[str, Metric] = {
            "log_loss": metrics.LogLoss(),
            "mse": metrics.MeanSquaredError(),
        }
        collection = {**ranked, **pointwise}
        for metric in collection.values():
            metric.to(self.labels.device)
        for lo, hi in _blocks(*share(len(self)), replicas):
            pairs = Pairs(
                self.users[lo:hi].expand(replicas, -1),
                self.items[lo:hi].expand(replicas, -1),
                estimator.space,
                hi - lo,
            )
            f = torch.sigmoid(estimator.logit("prediction", pairs))
            labels, users = self.labels[lo:hi], self.users[lo:hi]
            mask = None if include is None else include[:, lo:hi]
            for name, metric in ranked.items():
                if name == "auc":
                    metric.update(f, labels, include=mask)
                else:
                    metric.update(f, labels, users, include=mask)
            weight = None if mask is None else mask.double()
            for metric in pointwise.values():
                metric.update(f, labels, weight)
        return {name: metric.compute() for name, metric in collection.items()}


def heldout_log_loss(estimator: Estimator, *, weighted: bool) -> Tensor:  # [R] float64
    """Log-loss on the held-out rows of each replica, plain or weighted by 1 / p_hat."""
    space = estimator.space
    metric = metrics.LogLoss(replicas=space.replicas).to(space.keys.device)
    for lo, hi in _blocks(*share(space.n_held), space.replicas):
        rows = space.held_rows(lo, hi)
        keys = space.keys[rows]
        pairs = space.pairs(keys, hi - lo)
        f = torch.sigmoid(estimator.logit("prediction", pairs))
        weight = 1.0 / estimator.p_hat(pairs) if weighted and estimator.has_propensity else None
        metric.update(f, space.labels[rows], weight)
    return metric.compute()


class Diagnosis(NamedTuple):
    """What ``Diagnostics`` finds: values ``[R]``, bins, histogram with its edges, lower clip."""

    values: dict[str, Tensor]
    reliability: metrics.Reliability
    histogram: metrics.HistogramCounts
    edges: Tensor
    p_min: float


def _edges(floor: float) -> Tensor:
    """Logarithmic edges over (0, 1], the clip among them, with 0 before."""
    grid = torch.logspace(-5, 0, 51, dtype=torch.float64)
    inner = torch.unique(torch.cat([grid, torch.tensor([floor], dtype=torch.float64)]))
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner])


class Diagnostics:
    """ECE, BMSE, DR bias and DR variance of the learned propensities over D.

    ECE (equal-mass bins) and BMSE measure the propensity as learned, bias and variance the doubly
    robust estimate as used: with the clipped propensity and the trained imputation.

    Small D are visited pair by pair. Larger ones are stratified: every observed pair, and a uniform
    sample of the others with the weight of what it stands for.

    With a simulated world, propensity and labels are the true ones, and the true propensity stands
    in the place of o: what is measured is the error, not the sampling noise of one log. On real
    data the error of an unobserved pair is known only in the MAR sample, which then stands for all
    of D outside O, and the variance takes p_hat for p (the plug-in).

    Args:
        data: The dataset.
        mar: Its MAR sample.
        num_bins: Bins of the ECE.
    """

    def __init__(self, data: RatingData, mar: MarSet, num_bins: int = 10) -> None:
        self.truth: Truth | None = data.truth
        self.mar = mar
        self.num_bins = num_bins
        self.features = (data.train.user_features, data.train.item_features)

    @torch.no_grad()
    def measure(self, estimator: Estimator) -> "Diagnosis":
        """The four diagnostics of every replica, and what the figures of the propensity show."""
        device = estimator.space.keys.device
        floor = estimator.weighting.floor(estimator)
        histogram = metrics.PropensityHistogram(_edges(floor), floor).to(device)
        edges = equal_mass_edges(self._probe(estimator), self.num_bins)
        ece = metrics.ExpectedCalibrationError(self.num_bins, "equal_mass", edges).to(device)
        bmse = metrics.BalancedMeanSquaredError().to(device)
        bias, variance = metrics.DRBias().to(device), metrics.DRVariance().to(device)
        for pairs, weight in self._all_pairs(estimator):
            raw = estimator.propensity(pairs).double().clamp(1e-6, 1 - 1e-6)
            histogram.update(raw, pairs.o, weight)
            phi = self._phi(estimator, pairs)
            for o, likely in self._outcomes(pairs):
                ece.update(raw, o, weight * likely)
                bmse.update(raw, o, phi, weight * likely)
        for pairs, weight, labels in self._labelled_pairs(estimator):
            p_hat = estimator.p_hat(pairs).double()
            f_logit = estimator.logit("prediction", pairs)
            e = estimator.form.error(f_logit, labels)
            e_hat = torch.zeros_like(e)
            if estimator.has_imputation:
                e_hat = estimator.form.imputed(f_logit, estimator.logit("imputation", pairs))
            p = p_hat if self.truth is None else self.truth.propensity(pairs.users, pairs.items)
            bias.update(p_hat, pairs.o if self.truth is None else p, e, e_hat, weight)
            variance.update(p_hat, p, e, e_hat, weight)
        values = {"ece": ece.compute(), "bmse": bmse.compute()}
        if self.truth is not None or len(self.mar):  # else no error outside the log is known
            values |= {"dr_bias": bias.compute(), "dr_variance": variance.compute()}
        return Diagnosis(values, ece.reliability(), histogram.histogram(), _edges(floor), floor)

    def _outcomes(self, pairs: Pairs) -> list[tuple[Tensor, Tensor | float]]:
        """Observation indicators and their probabilities: both outcomes where the truth is known.

        ECE and BMSE are linear in o before a norm is taken, so weighting both outcomes by p puts
        the true propensity in the place of o, and no sampling noise of the log is left.
        """
        if self.truth is None:
            return [(pairs.o, 1.0)]
        p = self.truth.propensity(pairs.users, pairs.items)
        return [(torch.ones_like(pairs.o), p), (torch.zeros_like(pairs.o), 1.0 - p)]

    def _probe(self, estimator: Estimator) -> Tensor:  # [R, N] float64
        """Propensities of a sample of D (all of a small D), from which the bins are cut."""
        space = estimator.space
        size = min(PROBE_PAIRS, space.n_pairs)
        domain = Permutation(space.n_pairs, space.n_items)
        stream = EpochStream(domain, stream_key(space.seeds[:1], "bins_of_ece"))
        index = stream.rows(0, 1, 0, size, size)[0, 0]
        return estimator.propensity(space.pairs(_everyone(index, estimator), size)).double()

    def _phi(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Features whose balance is measured: the dataset's own, else the prediction."""
        parts = [
            table.to(index.device)[index[0]]  # the pairs are the same for every replica
            for table, index in zip(self.features, (pairs.users, pairs.items), strict=True)
            if table is not None
        ]
        if parts:
            return torch.cat(parts, dim=-1)
        return torch.sigmoid(estimator.logit("prediction", pairs)).unsqueeze(-1)

    def _all_pairs(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
        space = estimator.space
        if space.n_pairs <= EXACT_PAIRS:
            for lo, hi in _blocks(*share(space.n_pairs), space.replicas):
                pairs = space.pairs(_everyone(torch.arange(lo, hi), estimator), hi - lo)
                yield pairs, torch.ones(pairs.users.shape, device=pairs.users.device)
            return
        yield from self._observed(estimator)
        stream = EpochStream(
            Permutation(space.n_pairs, space.n_items), stream_key(space.seeds[:1], "diagnose")
        )
        for lo, hi in _blocks(*share(SAMPLE_PAIRS), space.replicas):
            index = stream.rows(0, 1, lo, hi, SAMPLE_PAIRS)[0, 0]
            pairs = space.pairs(_everyone(index, estimator), hi - lo)
            outside = (~pairs.observed).float()
            yield pairs, outside * (space.n_pairs / SAMPLE_PAIRS)

    def _observed(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
        space = estimator.space
        for lo, hi in _blocks(*share(space.n_observed), space.replicas):
            pairs = space.pairs(_everyone(space.keys[lo:hi], estimator), hi - lo)
            yield pairs, torch.ones(pairs.users.shape, device=pairs.users.device)

    def _labelled_pairs(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor, Tensor]]:
        """Pairs with weights and true labels that together stand for D."""
        space = estimator.space
        if self.truth is not None:
            for pairs, weight in self._all_pairs(estimator):
                yield pairs, weight, self.truth.label(pairs.users, pairs.items)
            return
        if not len(self.mar):
            return
        for pairs, weight in self._observed(estimator):
            row, _ = space.find(pairs.users, pairs.items)
            yield pairs, weight, space.labels[row]
        _, seen = space.find(self.mar.users, self.mar.items)
        stands_for = (space.n_pairs - space.n_observed) / max(1, int((~seen).sum()))
        for lo, hi in _blocks(*share(len(self.mar)), space.replicas):
            users, items = self.mar.users[lo:hi], self.mar.items[lo:hi]
            pairs = space.pairs(_everyone(users * space.n_items + items, estimator), hi - lo)
            weight = (~pairs.observed).float() * stands_for
            yield pairs, weight, self.mar.labels[lo:hi].expand(space.replicas, -1)


def _everyone(index: Tensor, estimator: Estimator) -> Tensor:  # [B] -> [R, B]
    return index.to(estimator.space.keys.device).expand(estimator.space.replicas, -1)


def _blocks(lo: int, hi: int, replicas: int) -> Iterator[tuple[int, int]]:
    """Consecutive blocks of ``lo .. hi`` that fit memory."""
    size = max(1, BLOCK // replicas)
    for first in range(lo, hi, size):
        yield first, min(first + size, hi)
