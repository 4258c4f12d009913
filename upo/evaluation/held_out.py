"""ECE and BMSE of propensities on cells of D whose o they were not fitted to, beside their floors.

In a simulated world they are those against the true propensities, which no o of the log is in: the
floor is 0. Of a real log the cells are the tenth of D, drawn by seed, that the stages of a
propensity hold out (``StagePlan.select``): no gradient has read their o. What has read it is said
here, since it is little but not nothing: the choice of one epoch among those of a stage, the
smoothed margins of the log that propensities may start from, and what is solved over all cells in
closed form (a calibration's steps, totals that are raked to). A propensity with a stage that draws
from all of D has none of these columns: what is measured on cells that it was fitted to is no
evidence. Where a run keeps cells back (``propensity.withhold``), they judge instead: nothing has
read them, whatever the row.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.data.withheld import Withheld
from upo.evaluation.diagnostics import Diagnosis
from upo.evaluation.held_cells import HeldCells
from upo.evaluation.populations import unclipped
from upo.evaluation.unseen_cells import UnseenCells
from upo.functional.binning import bin_sums, bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import bmse_sums, bmse_terms
from upo.functional.noise_floor import bmse_floor, calibration_noise, ece_floor, imbalance_noise
from upo.metrics.names import HELD
from upo.models.estimator import Estimator
from upo.pairs import Pairs

Features = tuple[Tensor | None, Tensor | None]


def against_truth(diagnoses: Sequence[Diagnosis]) -> dict[str, Tensor]:  # name -> [R] float64
    """The columns of a simulated world; none if its diagnostics are of another definition."""
    for each in diagnoses:
        if each.definition == "correct":
            ece, bmse = each.values["ece"], each.values["bmse"]
            nothing = torch.zeros_like(ece)
            return dict(zip(HELD, (ece, bmse, nothing, nothing), strict=True))
    return {}


@torch.no_grad()
def held_columns(
    estimator: Estimator,
    features: Features,
    num_bins: int = 10,
    withheld: Withheld | None = None,
) -> dict[str, Tensor]:  # name -> [R] float64
    """ECE in bins of equal mass, BMSE, and the floor of each, on the held-out cells.

    All observed cells among them are visited, and a sample of the others where they are many.

    Args:
        estimator: The networks, with a propensity.
        features: Columns of users and of items whose balance is measured; the prediction if there
            are none.
        num_bins: Bins of the ECE.
        withheld: Cells that the run has kept back; those that the stages hold out by default.
    """
    space = estimator.space
    held = HeldCells(space) if withheld is None else UnseenCells(space, withheld)
    edges = equal_mass_edges(unclipped(estimator, held.probe()), num_bins)
    gap, noise, balance, cells, spread = _sums(estimator, held, features, edges)
    n = cells.sum(-1)
    values = (
        gap.abs().sum(-1) / n,
        (balance / n.unsqueeze(-1)).square().sum(-1),
        ece_floor(noise, n),
        bmse_floor(spread, n),
    )
    return dict(zip(HELD, values, strict=True))


def _sums(
    estimator: Estimator, held: HeldCells | UnseenCells, features: Features, edges: Tensor
) -> Sequence[Tensor]:
    """By bin: o - p_hat, its variance; the features' imbalance; cells; variance of the balance."""
    bins = edges.shape[-1] + 1
    weights = held.observed_weight, held.drawn_weight
    totals: list[Tensor] = []
    probe = held.probe()
    nothing = torch.zeros(probe.users.shape, dtype=torch.float64, device=probe.users.device)
    # a rank without a share adds zeros, of the right shapes
    for pairs, weight, observed in chain([(probe, nothing, False)], held.cells()):
        p_hat, phi = unclipped(estimator, pairs), features_of(estimator, pairs, features)
        o = torch.full_like(p_hat, float(observed))
        index = bins_from_edges(p_hat, edges)
        parts = [
            bin_sums(weight * (o - p_hat), index, bins),
            bin_sums(weight * calibration_noise(p_hat, *weights), index, bins),
            bmse_sums(weight * bmse_terms(p_hat, o), phi),
            bin_sums(weight, index, bins),
            (weight * imbalance_noise(p_hat, *weights) * phi.double().square().sum(-1)).sum(-1),
        ]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    return [sum_across_ranks(total) for total in totals]


def features_of(estimator: Estimator, pairs: Pairs, features: Features) -> Tensor:  # [R, B, d]
    """Features of pairs of each replica: the dataset's own, else the prediction."""
    parts = [
        table.to(index.device)[index]
        for table, index in zip(features, (pairs.users, pairs.items), strict=True)
        if table is not None
    ]
    if parts:
        return torch.cat(parts, dim=-1)
    return estimator.share(pairs).unsqueeze(-1)
