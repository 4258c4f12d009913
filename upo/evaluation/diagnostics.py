"""The four diagnostics of an estimator's propensities: calibration, balance, bias and variance.

Every rank measures its share of the rows; the metrics are exact for any sharding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from upo import metrics
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.evaluation.mar import MarSet
from upo.evaluation.own_estimate import self_normalized
from upo.evaluation.populations import knowledge, measured, unclipped, whole
from upo.evaluation.strata import Strata
from upo.evaluation.table1_compat import table1_compat
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import dr_bias_terms, dr_variance_terms
from upo.metrics.names import DEFINITIONS
from upo.models.estimator import Estimator
from upo.pairs import Pairs


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
    robust estimate as used: with the clipped propensity and the trained imputation, or without one.
    SNIPS has its own (see ``upo.evaluation.own_estimate``), and they are left out where the
    objective is neither (``Estimator.estimate`` is None).

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
        self.data, self.mar, self.num_bins = data, mar, num_bins
        self.features = (data.train.user_features, data.train.item_features)

    @torch.no_grad()
    def measure(self, estimator: Estimator) -> "Diagnosis":
        """The four diagnostics of every replica, and what the figures of the propensity show."""
        floor = estimator.weighting.floor(estimator)
        edges = _edges(floor)
        histogram = metrics.PropensityHistogram(edges, floor).to(estimator.space.keys.device)
        for pairs, weight in whole(estimator.space):
            histogram.update(unclipped(estimator, pairs), pairs.o, weight)
        if self.definition == "correct":
            values, reliability = self._correct(estimator)
        else:
            values, reliability = table1_compat(estimator, self.data.truth, self.mar, self.num_bins)
        return Diagnosis(values, reliability, histogram.histogram(), edges, floor, self.definition)

    def _correct(self, estimator: Estimator) -> tuple[dict[str, Tensor], metrics.Reliability]:
        space = estimator.space
        known = knowledge(self.data, self.mar, space.target)
        population = measured(space, self.data, self.mar)
        device = space.keys.device
        probe = estimator.propensity(population.probe()).double()
        edges = equal_mass_edges(probe, self.num_bins)
        ece = metrics.ExpectedCalibrationError(self.num_bins, "equal_mass", edges).to(device)
        bmse = metrics.BalancedMeanSquaredError().to(device)
        bias, variance = metrics.DRBias().to(device), metrics.DRVariance().to(device)
        strata = Strata(space.n_observed, space.n_pairs) if population.sampled else None
        for pairs, weight in population:
            raw, phi = unclipped(estimator, pairs), self._phi(estimator, pairs)
            for o, likely in known.outcomes(pairs):
                ece.update(raw, o, weight * likely)
                bmse.update(raw, o, phi, weight * likely)
            if strata is not None:
                o = known.expected(pairs)
                bins = one_hot(bins_from_edges(raw, edges), self.num_bins)
                strata.add("ece", bins * (o - raw).unsqueeze(-1), pairs)
                balance = o / raw - (1 - o) / (1 - raw)
                strata.add("bmse", balance.unsqueeze(-1) * phi, pairs)
        normal = self_normalized(estimator, population, known)
        for pairs, weight, labels in known.labelled(population) if estimator.estimate else ():
            p_hat = estimator.p_hat(pairs).double()
            e, e_hat = estimator.error_and_imputed(pairs, labels)
            if normal is not None:
                e_hat = normal.level.expand_as(e)
            true = known.propensity(pairs)
            p = p_hat if true is None else true
            bias.update(p_hat, pairs.o if true is None else true, e, e_hat, weight)
            variance.update(p_hat, p, e, e_hat, weight)
            if strata is not None:
                gap = dr_bias_terms(p_hat, known.expected(pairs), e, e_hat)
                strata.add("dr_bias", gap.unsqueeze(-1), pairs)
                terms = dr_variance_terms(p_hat, p, e, e_hat)
                strata.add("dr_variance", terms.unsqueeze(-1), pairs)
        values = {"ece": ece.compute(), "bmse": bmse.compute()}
        if known.complete and estimator.estimate:
            values |= {"dr_bias": bias.compute(), "dr_variance": variance.compute()}
            if normal is not None:
                values["dr_variance"] = values["dr_variance"] / normal.mass.squeeze(-1) ** 2
        if strata is not None:
            values |= {f"{name}_error": strata.error(name) for name in list(values)}
        return values, ece.reliability()

    def _phi(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Features whose balance is measured: the dataset's own, else the prediction."""
        parts = [
            table.to(index.device)[index[0]]  # the pairs are the same for every replica
            for table, index in zip(self.features, (pairs.users, pairs.items), strict=True)
            if table is not None
        ]
        if parts:
            return torch.cat(parts, dim=-1)
        return estimator.share(pairs).unsqueeze(-1)
