"""The adversary of the minimax game against given propensities: where are they most wrong?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upo.audit.balance import feature_columns
from upo.audit.inference import weighted_sum_tail
from upo.audit.pairs import AuditPairs
from upo.audit.segments import Segmentation, segment_counts
from upo.core.layers import Sizes
from upo.core.optim import ReplicaAdam
from upo.core.sampling import splitmix64
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.propensity import binned_upo_loss
from upo.models.adversary import Adversary
from upo.models.propensity import AdditivePropensity

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

HIDDEN = 8
REPLICAS = 4  # initial weights, whose mean w is steadier than each
STEPS = 150
RATE = 0.02
BATCH = 2**15  # rows of a step
TENTH = 0.1
CLEARLY = 1.3  # times as frequent as elsewhere


class _ByFeatures(nn.Module):
    """w(x) in (-1, 1) of the features."""

    def __init__(self, pairs: AuditPairs, seed: int) -> None:
        super().__init__()
        columns = [torch.from_numpy(_logit(pairs.p)).float()]
        columns += [torch.from_numpy(values).float() for _, values in feature_columns(pairs)]
        x = torch.stack([(c - c.mean()) / c.std().clamp(min=1e-6) for c in columns], dim=1)
        self.x = nn.functional.pad(x, (0, x.shape[1] % 2))
        sizes = _sizes(pairs, seed)
        self.net = Adversary(sizes, dim=self.x.shape[1] // 2, hidden=HIDDEN, purpose="audit")
        self.units, self.decay = 1, 1.0

    def forward(self, rows: Tensor) -> Tensor:  # [B] -> [R, B]
        weight: Tensor = self.net(self.x[rows].expand(REPLICAS, -1, -1))
        return weight


class _ByIds(nn.Module):
    """w in (-1, 1), additive in user and item before the bound."""

    def __init__(self, pairs: AuditPairs, seed: int) -> None:
        super().__init__()
        self.users, self.items = (torch.from_numpy(x) for x in (pairs.users, pairs.items))
        sizes = _sizes(pairs, seed)
        self.net = AdditivePropensity(sizes, dim=1, init_logit=0.0, purpose="audit")
        self.units, self.decay = max(sizes.n_users, sizes.n_items), 5.0

    def forward(self, rows: Tensor) -> Tensor:  # [B] -> [R, B]
        users, items = (x[rows].expand(REPLICAS, -1) for x in (self.users, self.items))
        logit: Tensor = self.net(users, items)
        return torch.tanh(logit)


@dataclass(frozen=True, eq=False)
class Attack:
    """One adversary's result on the half of the pairs that it was not trained on.

    Attributes:
        name: What w depends on.
        gain: Held-out sum of ``s w (o - p)`` over the pairs of D: its UPO loss, eq. (4), with the
            sign s of each bin taken from the other half.
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
    r"""Train w on a hashed half of the pairs to maximise L_UPO, and test it on the other half.

    .. math:: L_{UPO} = \frac{1}{|D|} \sum_m \Bigl| \sum_{B_m} w(x) (o - \hat p) \Bigr|

    In training the gain is divided by its null standard deviation; undivided it is largest for
    w = 1 or -1 everywhere, which says little about where. Given the first half, w and the signs of
    the bins are fixed when they meet the second, so the null distribution of what they find there
    is that of any fixed weight. One adversary sees the features and the propensity, the other who
    the user and the item are.

    Source: Zheng et al., UPO, AAAI 2026, eq. (4) and Algorithm 1 (the ascent in w). Differs: the
    division in training, and the signs of the other half in the test.
    """
    key = splitmix64(torch.tensor(seed, dtype=torch.int64))
    users, items = torch.from_numpy(pairs.users), torch.from_numpy(pairs.items)
    mixed = splitmix64(splitmix64(key + users) + items).numpy()
    first = mixed & 1 == 0
    if not 0 < first.sum() < len(pairs):
        return
    p = torch.from_numpy(pairs.p)
    index = bins_from_edges(p, equal_mass_edges(p, num_bins))
    for name, build in (("features", _ByFeatures), ("users and items", _ByIds)):
        network = build(pairs, seed)
        order = np.argsort(mixed)  # rows come to the adversary in an order of their own
        _train(network, pairs, torch.from_numpy(order[first[order]]), index, num_bins)
        with torch.no_grad():
            blocks = torch.split(torch.arange(len(pairs)), BATCH)
            weight = torch.cat([network(rows) for rows in blocks], dim=1).double()
        yield _held_out(name, pairs, ~first, _direction(weight, pairs, first, index.numpy()), named)


def _train(
    network: _ByFeatures | _ByIds, pairs: AuditPairs, order: Tensor, index: Tensor, num_bins: int
) -> None:
    q, o = (torch.from_numpy(x).float() for x in (pairs.q, pairs.observed))
    scale = torch.from_numpy(pairs.scale / pairs.scale.mean()).float()
    size = min(BATCH, len(order))
    noise = q * (1 - q)
    # the gain of a user's rows in null standard deviations, so that one decay suits every size
    unit = (size * network.units) ** 0.5
    optimizer = ReplicaAdam(
        network.parameters(), replicas=REPLICAS, lr=RATE, weight_decay=network.decay
    )
    for step in range(STEPS):
        start = step * size % (len(order) - size + 1)
        batch = order[start : start + size]
        weight = network(batch) * scale[batch]
        p_hat, seen, bins = (x[batch].expand(weight.shape) for x in (q, o, index))
        gain = binned_upo_loss(p_hat, seen, weight, bins, num_bins)
        deviation = (weight**2 * noise[batch]).mean(-1).sqrt().clamp(min=1e-9)
        optimizer.zero_grad()
        (-unit * gain / deviation).sum().backward()
        optimizer.step()


def _direction(
    weight: Tensor, pairs: AuditPairs, rows: Mask, index: NDArray[np.int64]
) -> Floats:  # [R, N] -> [N]
    """The mean of the replicas' w; to the loss w and -w are one in each bin, so first turned."""
    mean = np.zeros(len(pairs))
    for w in weight.numpy():
        residual = w * pairs.scale * (pairs.observed - pairs.q)
        by_bin = np.bincount(index[rows], residual[rows], minlength=index.max() + 1)
        mean += w * np.sign(by_bin)[index] / REPLICAS
    return mean


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


def _sizes(pairs: AuditPairs, seed: int) -> Sizes:
    seeds = [seed + r for r in range(REPLICAS)]
    return Sizes(len(pairs.user_ids), len(pairs.item_ids), seeds)


def _logit(p: Floats) -> Floats:
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)
