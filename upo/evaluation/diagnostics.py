"""The four diagnostics of an estimator's propensities: calibration, balance, bias and variance.

Every rank measures its share of the rows; the metrics are exact for any sharding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from upo import metrics
from upo.core.distributed import share
from upo.core.sampling import EpochStream, Permutation, stream_key
from upo.data.rating_data import RatingData, Truth
from upo.errors import InputError
from upo.evaluation.mar import MarSet, blocks
from upo.evaluation.strata import Strata
from upo.evaluation.table1_compat import table1_compat
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import dr_bias_terms, dr_variance_terms
from upo.metrics.names import DEFINITIONS
from upo.models.estimator import Estimator
from upo.pairs import Pairs

EXACT_PAIRS = 2**21  # |D| up to which diagnostics visit every pair
SAMPLE_PAIRS = 2**20  # pairs of D \ O sampled beyond
PROBE_PAIRS = 2**17  # pairs whose propensities fix the bins of the ECE


class Diagnosis(NamedTuple):
    """What ``Diagnostics`` finds: values ``[R]``, bins, histogram over D with its edges, clip."""

    values: dict[str, Tensor]
    reliability: metrics.Reliability
    histogram: metrics.HistogramCounts
    edges: Tensor
    p_min: float
    definition: str = "correct"

    @property
    def columns(self) -> dict[str, Tensor]:
        """The values by result column; other definitions have other columns."""
        return {name + DEFINITIONS[self.definition]: value for name, value in self.values.items()}


def parse_definitions(given: str | Sequence[str]) -> list[str]:
    """The definitions asked for by ``diagnostics=``, one or a list.

    Raises:
        InputError: If there is none, or one is unknown.

    >>> parse_definitions("correct")
    ['correct']
    """
    names = [given] if isinstance(given, str) else list(given)
    if not names or not set(names) <= set(DEFINITIONS):
        raise InputError(
            f"diagnostics must be one or a list of {', '.join(DEFINITIONS)}, got {given!r}."
        )
    return list(dict.fromkeys(names))


def _edges(floor: float) -> Tensor:
    """Logarithmic edges over (0, 1], the clip among them, with 0 before."""
    grid = torch.logspace(-5, 0, 51, dtype=torch.float64)
    inner = torch.unique(torch.cat([grid, torch.tensor([floor], dtype=torch.float64)]))
    return torch.cat([torch.zeros(1, dtype=torch.float64), inner])


class Diagnostics:
    """ECE, BMSE, DR bias and DR variance of the learned propensities.

    ECE (equal-mass bins) and BMSE measure the propensity as learned, bias and variance the doubly
    robust estimate as used: with the clipped propensity and the trained imputation.

    With a simulated world, propensity and labels are the true ones, and the true propensity stands
    in the place of o: what is measured is the error, not the sampling noise of one log. Where the
    world holds cells out of D (``data.cells``), all four are measured on its test pairs, which no
    network has seen, so that their o is independent of what was learned; else over D.

    Small D are visited pair by pair. Larger ones are stratified: every observed pair, and a uniform
    sample of the others with the weight of what it stands for. On real data the error of an
    unobserved pair is known only in the MAR sample, which then stands for all of D outside O, and
    the variance takes p_hat for p (the plug-in).

    Args:
        data: The dataset.
        mar: Its MAR sample.
        num_bins: Bins of the ECE.
        definition: ``correct``, which is the above, or ``table1_compat``, which scores the test
            pairs as the published code does (see :mod:`upo.evaluation.table1_compat`).

    Raises:
        InputError: If the definition is unknown.
    """

    def __init__(
        self, data: RatingData, mar: MarSet, num_bins: int = 10, *, definition: str = "correct"
    ) -> None:
        self.definition = parse_definitions(definition)[0]
        self.truth: Truth | None = data.truth
        self.mar = mar
        self.num_bins = num_bins
        self.features = (data.train.user_features, data.train.item_features)
        self.held_out = data.truth is not None and data.cells is not None and len(mar) > 0

    @torch.no_grad()
    def measure(self, estimator: Estimator) -> "Diagnosis":
        """The four diagnostics of every replica, and what the figures of the propensity show."""
        floor = estimator.weighting.floor(estimator)
        histogram = metrics.PropensityHistogram(_edges(floor), floor)
        histogram.to(estimator.space.keys.device)
        for pairs, weight in self._all_pairs(estimator):
            histogram.update(_unclipped(estimator, pairs), pairs.o, weight)
        if self.definition == "correct":
            values, reliability = self._correct(estimator)
        else:
            values, reliability = table1_compat(estimator, self.truth, self.mar, self.num_bins)
        counts, edges = histogram.histogram(), _edges(floor)
        return Diagnosis(values, reliability, counts, edges, floor, self.definition)

    def _correct(self, estimator: Estimator) -> tuple[dict[str, Tensor], metrics.Reliability]:
        device = estimator.space.keys.device
        edges = equal_mass_edges(self._probe(estimator), self.num_bins)
        ece = metrics.ExpectedCalibrationError(self.num_bins, "equal_mass", edges).to(device)
        bmse = metrics.BalancedMeanSquaredError().to(device)
        bias, variance = metrics.DRBias().to(device), metrics.DRVariance().to(device)
        space = estimator.space
        sampled = not self.held_out and space.n_pairs > EXACT_PAIRS
        strata = Strata(space.n_observed, space.n_pairs) if sampled else None
        for pairs, weight in self._population(estimator):
            raw, phi = _unclipped(estimator, pairs), self._phi(estimator, pairs)
            for o, likely in self._outcomes(pairs):
                ece.update(raw, o, weight * likely)
                bmse.update(raw, o, phi, weight * likely)
            if strata is not None:
                o = self._expected(pairs)
                bins = one_hot(bins_from_edges(raw, edges), self.num_bins)
                strata.add("ece", bins * (o - raw).unsqueeze(-1), pairs)
                balance = o / raw - (1 - o) / (1 - raw)
                strata.add("bmse", balance.unsqueeze(-1) * phi, pairs)
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
            if strata is not None:
                gap = dr_bias_terms(p_hat, self._expected(pairs), e, e_hat)
                strata.add("dr_bias", gap.unsqueeze(-1), pairs)
                strata.add(
                    "dr_variance", dr_variance_terms(p_hat, p, e, e_hat).unsqueeze(-1), pairs
                )
        values = {"ece": ece.compute(), "bmse": bmse.compute()}
        if self.truth is not None or len(self.mar):  # else no error outside the log is known
            values |= {"dr_bias": bias.compute(), "dr_variance": variance.compute()}
        if strata is not None:
            values |= {f"{name}_error": strata.error(name) for name in list(values)}
        return values, ece.reliability()

    def _expected(self, pairs: Pairs) -> Tensor:  # [R, B]
        """The true propensity where it is known, else o."""
        if self.truth is None:
            return pairs.o.double()
        return self.truth.propensity(pairs.users, pairs.items)

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
        """Propensities from which the bins are cut: of all that is measured, or a sample of it."""
        space = estimator.space
        if self.held_out:
            keys = self.mar.users * space.n_items + self.mar.items
            keys = keys[:: -(-len(keys) // PROBE_PAIRS)]
            probe = space.pairs_at(_everyone(keys, estimator), len(keys))
            return estimator.propensity(probe).double()
        size = min(PROBE_PAIRS, space.n_pairs)
        stream = EpochStream(
            Permutation(space.n_pairs, space.n_items), stream_key(space.seeds[:1], "bins_of_ece")
        )
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

    def _population(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
        """What is measured, with weights: the test pairs where cells are held out, else D."""
        if not self.held_out:
            yield from self._all_pairs(estimator)
            return
        for pairs, _ in self.mar.blocks(estimator):
            yield pairs, torch.ones(pairs.users.shape, device=pairs.users.device)

    def _all_pairs(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
        space = estimator.space
        if space.n_pairs <= EXACT_PAIRS:
            for lo, hi in blocks(*share(space.n_pairs), space.replicas):
                pairs = space.pairs(_everyone(torch.arange(lo, hi), estimator), hi - lo)
                yield pairs, torch.ones(pairs.users.shape, device=pairs.users.device)
            return
        yield from self._observed(estimator)
        stream = EpochStream(
            Permutation(space.n_pairs, space.n_items), stream_key(space.seeds[:1], "diagnose")
        )
        for lo, hi in blocks(*share(SAMPLE_PAIRS), space.replicas):
            index = stream.rows(0, 1, lo, hi, SAMPLE_PAIRS)[0, 0]
            pairs = space.pairs(_everyone(index, estimator), hi - lo)
            outside = (~pairs.observed).float()
            yield pairs, outside * (space.n_pairs / SAMPLE_PAIRS)

    def _observed(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor]]:
        space = estimator.space
        for lo, hi in blocks(*share(space.n_observed), space.replicas):
            pairs = space.pairs_at(_everyone(space.keys[lo:hi], estimator), hi - lo)
            yield pairs, torch.ones(pairs.users.shape, device=pairs.users.device)

    def _labelled_pairs(self, estimator: Estimator) -> Iterator[tuple[Pairs, Tensor, Tensor]]:
        """Pairs with weights and true labels that together stand for D."""
        space = estimator.space
        if self.truth is not None:
            for pairs, weight in self._population(estimator):
                yield pairs, weight, self.truth.label(pairs.users, pairs.items)
            return
        if not len(self.mar):
            return
        for pairs, weight in self._observed(estimator):
            row, _ = space.find(pairs.users, pairs.items)
            yield pairs, weight, space.labels[row]
        _, seen = space.find(self.mar.users, self.mar.items)
        stands_for = (space.n_pairs - space.n_observed) / max(1, int((~seen).sum()))
        for pairs, rows in self.mar.blocks(estimator):
            weight = (~pairs.observed).float() * stands_for
            yield pairs, weight, self.mar.labels[rows].expand(space.replicas, -1)


def _unclipped(estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B] float64
    return estimator.propensity(pairs).double().clamp(1e-6, 1 - 1e-6)


def _everyone(index: Tensor, estimator: Estimator) -> Tensor:  # [B] -> [R, B]
    return index.to(estimator.space.keys.device).expand(estimator.space.replicas, -1)
