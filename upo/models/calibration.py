"""A propensity corrected by a map of its own logit, fitted to cells that it did not see."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.boosting import DEPTH, ROUNDS, Forest, boosted
from upo.functional.recalibration import POINTS, Steps, histogram, isotonic
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAPS = {"isotonic": isotonic, "histogram": histogram, "gbdt": isotonic}
MOST_ROWS = 2**16  # rows that trees are fitted to, evenly drawn


class Cells(NamedTuple):
    """Cells of D that stand for all of it, the same for every replica; all ``[M]``.

    Attributes:
        users: Indices.
        items: Indices.
        observed: Bool.
        weight: Float64, cells that each stands for.
    """

    users: Tensor
    items: Tensor
    observed: Tensor
    weight: Tensor


class Calibration(Derived):
    r"""Calibrated propensity :math:`c(z)` of a pair with logit z; z itself until it is fitted.

    ``isotonic`` runs straight from step to step of the isotonic regression, so that pairs keep
    their order and few are alike; ``histogram`` has a level for each bin. Both are constant beyond
    the logits that they were fitted to. ``gbdt`` first adds boosted trees over the logit, the mean
    logits of the user and of the item over D, and their features, then takes the isotonic map of
    the sum: :math:`c(z + t(z, \bar z_u, \bar z_i, x))`.
    ``upo.runs.crossfit`` fits them.

    Args:
        sizes: Seeds, users and items, density, and features where there are any.
        kind: ``isotonic``, ``histogram`` or ``gbdt``.
        source: Role of the propensity.
        purpose: Name of the network.

    Raises:
        InputError: If the kind is unknown.
    """

    replayable = True
    whole_tables = "is fitted to cells of all rows on one"
    places: Tensor
    levels: Tensor
    fitted: Tensor
    feature: Tensor
    cut: Tensor
    leaf: Tensor
    mean_logit: Tensor
    user_logit: Tensor
    item_logit: Tensor
    user_columns: Tensor | None
    item_columns: Tensor | None

    def __init__(
        self,
        sizes: Sizes,
        *,
        kind: str,
        source: str = "propensity",
        purpose: str = "calibration",
    ) -> None:
        super().__init__((source,))
        if kind not in MAPS:
            raise InputError(f"propensity.calibrate must be none, {', '.join(MAPS)}, got {kind!r}.")
        self.kind = kind
        n = len(sizes.seeds)
        self.register_buffer("places", torch.zeros(n, POINTS))
        self.register_buffer("levels", torch.zeros(n, POINTS))
        self.register_buffer("fitted", torch.zeros(n, 1, dtype=torch.bool))
        if kind == "gbdt":
            self.register_buffer("feature", torch.zeros(n, ROUNDS, DEPTH, dtype=torch.int64))
            self.register_buffer("cut", torch.zeros(n, ROUNDS, DEPTH))
            self.register_buffer("leaf", torch.zeros(n, ROUNDS, 2**DEPTH))
            start = math.log(sizes.density / (1 - sizes.density))
            sides = (("mean", 1), ("user", sizes.n_users), ("item", sizes.n_items))
            for name, many in sides:
                self.register_buffer(f"{name}_logit", torch.full((n * many, 1), start))
            columns = (None, None) if sizes.log is None else sizes.log.features
            for name, table in zip(("user_columns", "item_columns"), columns, strict=True):
                self.register_buffer(name, table, persistent=False)

    def fit(self, replica: int, cells: Cells, z: Tensor, fold: Tensor) -> Tensor:
        """Fit one replica's map.

        Args:
            replica: Which.
            cells: Cells of D, of both kinds.
            z: ``[M]`` logits of copies that did not see them.
            fold: ``[M]`` part of D that each lies in.

        Returns:
            ``[M]`` float32, what a map fitted to the cells of the other parts makes of each.
        """
        rows = cells.observed, cells.weight
        o, w = (x.double().cpu().numpy() for x in rows)
        logit, part = z.double().cpu().numpy(), fold.cpu().numpy()
        if self.kind == "gbdt":
            self._put_means(replica, cells, z)
            at = torch.full((1, 1), replica, device=z.device)
            x = self._columns(z[None], cells.users[None], cells.items[None], at)[0].double()
            logit = self._boost(replica, x.cpu().numpy(), logit, o, w, part)
        self._put(replica, MAPS[self.kind](logit, o, w))
        return torch.from_numpy(self._cross_fitted(logit, o, w, part)).float()

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logits ``[R, B]``; the propensity is frozen where a map is fitted."""
        z = estimator.logit(self.sources[0], pairs)
        mapped = self.corrected(z.detach(), pairs.users, pairs.items)
        return torch.where(self.fitted, torch.logit(mapped), z)

    def corrected(self, z: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """What the map makes of logits, once it is fitted; all ``[R, B]``."""
        if self.kind == "gbdt":
            replicas = torch.arange(len(z), device=z.device)[:, None]
            z = z + self._trees(self._columns(z, users, items, replicas))
        return self._map(z)

    def _map(self, z: Tensor) -> Tensor:  # [R, B] -> [R, B]
        place = torch.searchsorted(self.places, z.contiguous()).clamp(max=POINTS - 1)
        above = self.levels.gather(1, place)
        if self.kind == "histogram":
            return above
        before = (place - 1).clamp(min=0)
        low, high = self.places.gather(1, before), self.places.gather(1, place)
        part = ((z - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return torch.lerp(self.levels.gather(1, before), above, part)

    def _put(self, replica: int, steps: Steps) -> None:
        """Take one replica's steps; what is left of the buffers repeats the last."""
        ends = steps.ends if self.kind == "histogram" else steps.centers
        for buffer, values in ((self.places, ends), (self.levels, steps.levels)):
            row = torch.from_numpy(values).to(buffer)
            buffer[replica] = row[-1]
            buffer[replica, : len(row)] = row
        self.fitted[replica] = True

    def _put_means(self, replica: int, cells: Cells, z: Tensor) -> None:
        """Take a replica's mean logits; those of all cells, where a user or an item has none."""
        weight, value = cells.weight.cpu().numpy(), z.double().cpu().numpy()
        overall = float((weight * value).sum() / weight.sum())
        self.mean_logit[replica] = overall
        for table, index in ((self.user_logit, cells.users), (self.item_logit, cells.items)):
            mine, place = table.view(len(self.fitted), -1)[replica], index.cpu().numpy()
            mass, sums = (np.bincount(place, x, len(mine)) for x in (weight, weight * value))
            means = np.divide(sums, mass, out=np.full(len(mine), overall), where=mass > 0)
            mine.copy_(torch.from_numpy(means))

    def _columns(
        self, z: Tensor, users: Tensor, items: Tensor, replicas: Tensor
    ) -> Tensor:  # [R, B] and [R, 1] -> [R, B, F]
        """What trees ask about: the logit, the mean ones of the user and of the item, features."""
        columns = [z.unsqueeze(-1)]
        for table, index in ((self.user_logit, users), (self.item_logit, items)):
            rows = len(table) // len(self.fitted)
            means = table[replicas * rows + index.clamp(max=rows - 1)]
            known = (index < rows).unsqueeze(-1)  # an fm answers for others by their features
            columns.append(torch.where(known, means, self.mean_logit[replicas]))
        sides = ((self.user_columns, users), (self.item_columns, items))
        columns += [table[index] for table, index in sides if table is not None]
        return torch.cat(columns, dim=-1)

    def _trees(self, x: Tensor) -> Tensor:  # [R, B, F] -> [R, B]
        total = x.new_zeros(x.shape[:2])
        bits = 2 ** torch.arange(DEPTH, device=x.device)
        for tree in range(ROUNDS):
            asked = self.feature[:, tree, None].expand(-1, x.shape[1], -1)
            yes = x.gather(2, asked) > self.cut[:, tree, None]
            total += self.leaf[:, tree].gather(1, (yes * bits).sum(-1))
        return total

    def _cross_fitted(self, z: Floats, o: Floats, w: Floats, fold: Integers) -> Floats:
        """What each row gets of the other folds' map; of all rows' where those are of one kind."""
        order = np.argsort(z, kind="stable")  # once: what is sorted is sorted in no time
        z, o, w, fold = z[order], o[order], w[order], fold[order]
        found = np.empty(len(z))
        for number in np.unique(fold):
            mine = fold == number
            others = ~mine if o[~mine].min(initial=1) < o[~mine].max(initial=0) else slice(None)
            steps = MAPS[self.kind](z[others], o[others], w[others])
            at = steps.step if self.kind == "histogram" else steps.line
            found[order[mine]] = at(z[mine])
        return found

    def _boost(
        self, replica: int, x: Floats, z: Floats, o: Floats, w: Floats, fold: Integers
    ) -> Floats:
        """Take one replica's trees, and return the logits with those of the other folds."""
        total = z.copy()
        for number in np.unique(fold):
            other = fold != number
            total[~other] += _forest(x[other], z[other], o[other], w[other])(x[~other])
        forest = _forest(x, z, o, w)
        for buffer, values in zip((self.feature, self.cut, self.leaf), forest, strict=True):
            buffer[replica] = 0
            buffer[replica, : len(values)] = torch.from_numpy(values).to(buffer)
        return total


def _forest(x: Floats, z: Floats, o: Floats, w: Floats) -> Forest:
    some = slice(None, None, -(-len(z) // MOST_ROWS))
    return boosted(x[some], z[some], o[some], w[some])
