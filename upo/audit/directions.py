"""Where adversaries hold given propensities to be wrong: weights w trained on some of the pairs."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upo.audit.balance import feature_columns
from upo.audit.combinations import combinations
from upo.audit.pairs import AuditPairs
from upo.core.layers import Sizes
from upo.core.optim import ReplicaAdam
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.propensity import binned_upo_loss
from upo.models.adversary import Adversary
from upo.models.propensity import AdditivePropensity

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

HIDDEN = 8
REPLICAS = 4  # initial weights, whose mean w is steadier than each
STEPS = 150
RATE = 0.02
BATCH = 2**15  # rows of a step


def directions(
    pairs: AuditPairs, rows: Mask, order: Integers, *, num_bins: int, seed: int
) -> Iterator[tuple[str, Floats]]:
    """Names and directions ``[N]`` in [-1, 1], above 0 where the propensity is held for too low.

    Args:
        pairs: Under audit.
        rows: ``[N]``, those whose o may be read.
        order: ``[N]``, in which the rows come to an adversary that learns by steps.
        num_bins: Of the loss.
        seed: Of the initial weights.
    """
    p = torch.from_numpy(pairs.p)
    index = bins_from_edges(p, equal_mass_edges(p, num_bins))
    for name, build in (("features", _ByFeatures), ("users and items", _ByIds)):
        network = build(pairs, seed)
        _train(network, pairs, torch.from_numpy(order[rows[order]]), index, num_bins)
        with torch.no_grad():
            blocks = torch.split(torch.arange(len(pairs)), BATCH)
            weight = torch.cat([network(block) for block in blocks], dim=1).double()
        yield name, _direction(weight, pairs, rows, index.numpy())
    yield "user-item combinations", combinations(pairs, rows, seed)


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


def _sizes(pairs: AuditPairs, seed: int) -> Sizes:
    seeds = [seed + r for r in range(REPLICAS)]
    return Sizes(len(pairs.user_ids), len(pairs.item_ids), seeds)


def _logit(p: Floats) -> Floats:
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)
