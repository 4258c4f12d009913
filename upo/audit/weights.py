"""The inverse propensity weights of the observed pairs: their tail, and what a clip would do."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from upo.audit.pairs import AuditPairs
from upo.functional.diagnostics import effective_sample_size

Floats = NDArray[np.float64]

CLIPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
QUANTILES = (0.5, 0.9, 0.99, 0.999)


def weight_summary(pairs: AuditPairs) -> dict[str, float]:
    """The tail of the weights 1 / p_hat over the observed pairs.

    Returns:
        ``observed`` pairs, ``effective_sample_size`` (Kish), ``mean``, quantiles and ``max`` of the
        weights, ``largest_share`` and ``top_1_percent_share`` of their sum, and
        ``sum_over_pairs``: their sum divided by the pairs of D, which is about 1 at correct
        propensities.
    """
    p, w = _observed(pairs)
    inverse = 1 / p
    heavy = np.sort(w * inverse)[::-1]
    top = max(1, round(len(heavy) / 100))
    levels = np.quantile(inverse, QUANTILES)
    return {
        "observed": float(w.sum()),
        "effective_sample_size": kish(w * inverse),
        "mean": float((w * inverse).sum() / w.sum()),
        **{f"quantile_{q:g}": float(x) for q, x in zip(QUANTILES, levels, strict=True)},
        "max": float(inverse.max()),
        "largest_share": float(heavy[0] / heavy.sum()),
        "top_1_percent_share": float(heavy[:top].sum() / heavy.sum()),
        "sum_over_pairs": float(heavy.sum() / pairs.total),
    }


def clip_table(pairs: AuditPairs, p_min: float | None) -> pd.DataFrame:
    r"""What raising small propensities to a floor does to the weights.

    Returns:
        A row for each floor, ascending, no clip (0) first: ``p_min``, the shares of observed and of
        all pairs clipped, ``effective_sample_size``, ``max_weight``, ``mean_weight_change``
        relative to no clip, and ``mass``, :math:`\frac{1}{|D|} \sum_D \hat p / \max(\hat p,
        p_{min})`: the part of D that the clipped weights still stand for if the propensities are
        correct, so ``1 - mass`` bounds the bias of a clip for errors in [0, 1].
    """
    p, w = _observed(pairs)
    rows = []
    for floor in _floors(pairs.p, p_min):
        clipped = np.maximum(p, floor)
        rows.append(
            {
                "p_min": floor,
                "observed_clipped": float(w[p < floor].sum() / w.sum()),
                "all_clipped": float(pairs.weight[pairs.p < floor].sum() / pairs.total),
                "effective_sample_size": kish(w / clipped),
                "max_weight": float((1 / clipped).max()),
                "mean_weight_change": float((w / clipped).sum() / (w / p).sum() - 1),
                "mass": float(
                    (pairs.weight * pairs.p / np.maximum(pairs.p, floor)).sum() / pairs.total
                ),
            }
        )
    return pd.DataFrame(rows)


def kish(weights: Floats) -> float:
    """Effective sample size of the weights."""
    return float(effective_sample_size(torch.from_numpy(weights)))


def _observed(pairs: AuditPairs) -> tuple[Floats, Floats]:
    seen = pairs.observed == 1
    return pairs.p[seen], pairs.weight[seen]


def _floors(p: Floats, p_min: float | None) -> Iterable[float]:
    """No clip, those of the list that change something but not everything, and the asked one."""
    useful = {floor for floor in CLIPS if p.min() < floor <= p.max()}
    return sorted({0.0, *([] if p_min is None else [p_min]), *useful})
