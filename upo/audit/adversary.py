"""The adversary of the minimax game against given propensities: where are they most wrong?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from upo.audit.directions import directions
from upo.audit.inference import weighted_sum_tail
from upo.audit.pairs import AuditPairs
from upo.audit.segments import Segmentation, segment_counts
from upo.core.sampling import splitmix64

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

TENTH = 0.1
CLEARLY = 1.3  # times as frequent as elsewhere


@dataclass(frozen=True, eq=False)
class Attack:
    """One adversary's result on the half of the pairs that it was not trained on.

    Attributes:
        name: What w depends on.
        gain: Held-out sum of ``s w (o - p)`` over the pairs of D: its UPO loss, eq. (4), with the
            sign s of each bin taken from the other half (1 for combinations).
        standard_error: Of the gain at correct propensities, where its mean is 0.
        p_value: Of a gain at least as large.
        tests: Columns of :func:`upo.audit.segments.segment_counts` for the tenths of the pairs
            that it calls most too low and most too high.
    """

    name: str
    gain: float
    standard_error: float
    p_value: float
    tests: pd.DataFrame


def attacks(
    pairs: AuditPairs, named: list[Segmentation], *, num_bins: int, seed: int
) -> Iterator[Attack]:
    r"""Find w on a hashed half of the pairs to maximise L_UPO, and test it on the other half.

    .. math:: L_{UPO} = \frac{1}{|D|} \sum_m \Bigl| \sum_{B_m} w(x) (o - \hat p) \Bigr|

    In training the gain is divided by its null standard deviation; undivided it is largest for
    w = 1 or -1 everywhere, which says little about where. Given the first half, w and the signs of
    the bins are fixed when they meet the second, so the null distribution of what they find there
    is that of any fixed weight. One adversary sees the features and the propensity, one who the
    user and the item are, each for itself, and one which of them meet.

    Source: Zheng et al., UPO, AAAI 2026, eq. (4) and Algorithm 1 (the ascent in w). Differs: the
    division in training, the signs of the other half in the test, and singular vectors in place
    of the ascent over combinations, whose w has signs of its own.
    """
    key = splitmix64(torch.tensor(seed, dtype=torch.int64))
    users, items = torch.from_numpy(pairs.users), torch.from_numpy(pairs.items)
    mixed = splitmix64(splitmix64(key + users) + items).numpy()
    first = mixed & 1 == 0
    if not 0 < first.sum() < len(pairs):
        return
    # rows come to the adversary in an order of their own
    found = directions(pairs, first, np.argsort(mixed), num_bins=num_bins, seed=seed)
    for name, direction in found:
        yield _held_out(name, pairs, ~first, direction, named)


def _held_out(
    name: str, pairs: AuditPairs, second: Mask, direction: Floats, named: list[Segmentation]
) -> Attack:
    """Test a direction fixed on the other half; above 0 it holds the propensity for too low."""
    residual = pairs.scale * (pairs.observed - pairs.q)
    c = (direction * pairs.scale)[second]
    value = float((direction * residual)[second].sum())
    error = float(np.sqrt((c * c * pairs.variance[second]).sum()))
    total = float(pairs.weight[second].sum())
    tests = [
        _extreme(name, pairs, second, direction, word, sign, named)
        for word, sign in (("low", 1.0), ("high", -1.0))
    ]
    return Attack(
        name=name,
        gain=value / total,
        standard_error=error / total,
        p_value=weighted_sum_tail(c, pairs.q[second], value),
        tests=pd.concat(tests, ignore_index=True),
    )


def _extreme(
    name: str,
    pairs: AuditPairs,
    second: Mask,
    direction: Floats,
    word: str,
    sign: float,
    named: list[Segmentation],
) -> pd.DataFrame:
    """Test the tenth of the held-out pairs at one end of the adversary's opinion."""
    at = np.flatnonzero(second)
    order = at[np.argsort(-sign * direction[at], kind="stable")]
    chosen = np.zeros(len(pairs), dtype=bool)
    chosen[order[: max(1, round(TENTH * len(at)))]] = True
    label = f"the tenth that the adversary over {name} calls most too {word}"
    label += _described(chosen, second, named)
    whole = Segmentation(np.zeros(len(pairs), dtype=np.int64), [label])
    return segment_counts(pairs, whole, kind="adversary", rows=chosen)


def _described(chosen: Mask, second: Mask, named: list[Segmentation]) -> str:
    """The one segment that the chosen pairs hold most in excess of the others, if it is clear."""
    best, text = 0.05, ""
    others = second & ~chosen
    for segmentation in named:
        size = len(segmentation.labels)
        inside = np.bincount(segmentation.codes[chosen], minlength=size) / chosen.sum()
        outside = np.bincount(segmentation.codes[others], minlength=size) / max(1, others.sum())
        excess = np.where(inside >= CLEARLY * outside, inside - outside, 0.0)
        k = int(excess.argmax())
        if excess[k] > best:
            best = float(excess[k])
            share = f"{100 * inside[k]:.0f} % of it, {100 * outside[k]:.0f} % of the others"
            text = f" ({segmentation.labels[k]}: {share})"
    return text
