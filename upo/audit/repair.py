"""``upo.repair``: given propensities recalibrated on rows that the correction did not see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from upo.audit.pairs import AuditPairs, Names, read_pairs
from upo.audit.result import Audit, audit
from upo.audit.segments import mean_by
from upo.core.given import listed, whole
from upo.core.sampling import splitmix64, stream_key
from upo.errors import InputError
from upo.functional.boosting import boosted
from upo.functional.recalibration import isotonic
from upo.tables.aligned import aligned
from upo.tables.frames import first_line, to_arrow

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PRIOR = 5.0  # expected pairs by which the observed over expected of a user or item is shrunk


@dataclass(frozen=True, eq=False)
class Repaired:
    """Propensities after repair, and what the audit says of them before and after.

    Attributes:
        propensity: In the order of the rows that were given, with their index.
        before: Audit of the given ones.
        after: Audit of the repaired ones, on the same rows.
    """

    propensity: "pd.Series[float]"
    before: Audit
    after: Audit

    def __repr__(self) -> str:
        return f"<upo.Repaired: findings {self.before.n_found} before, {self.after.n_found} after>"

    def summary(self) -> str:
        """Findings and calibration errors before and after, as text."""
        lines = [f"findings: {self.before.n_found} before, {self.after.n_found} after"]
        lines += [
            f"ECE, {old.rule} bins: {old.ece:.4f} before, {new.ece:.4f} after; correct "
            f"propensities would give {new.null_mean:.4f}"
            for old, new in zip(self.before.bins, self.after.bins, strict=True)
        ]
        return "\n".join([*lines, self.after.verdict])


def repair(
    propensities: Any,
    pairs: Any,
    *,
    features: Sequence[str] | None = None,
    user: str = "user",
    item: str = "item",
    observed: str = "observed",
    weight: str | None = None,
    folds: int = 5,
    seed: int = 0,
    **settings: Any,
) -> Repaired:
    r"""Recalibrate anyone's propensities on the pairs themselves, cross-fitted.

    Rows are cut into folds. For each, boosted trees are fitted to the others, and then an isotonic
    map to the sums that the others got from trees that had not seen them. The trees ask about the
    propensity, its mean over the user's and the item's rows, how often each was observed against
    what was expected (in other folds than the row's own), and the features. The row's propensity
    becomes what they make of it.

    Args:
        propensities: In (0, 1]: the name of a column of ``pairs``, or as many numbers as it has
            rows, in their order; a pandas Series goes by its index.
        pairs: A row for each pair, as ``upo.audit`` takes it.
        features: Further columns to correct by; all that can be used if not given.
        user: Name of the user column.
        item: Name of the item column.
        observed: Name of the column of o, 0 or 1.
        weight: Name of the column of how many pairs of D a row stands for.
        folds: At least 2.
        seed: Of the folds and the audits.
        **settings: Of both audits: ``alpha``, ``p_min``, ``num_bins``.

    Raises:
        InputError: If the table or an argument is wrong; the message says what and how to fix it.
    """
    folds = whole("folds", folds, 2, 5)
    if features is not None:
        features = listed("features", features)
    table = to_arrow(pairs, None, "pairs")
    column = propensities
    if not isinstance(propensities, str):
        column = "propensity"
        table = _with(table, column, aligned(propensities, pairs, "propensities", "pairs"))
    given: dict[str, Any] = {"user": user, "item": item, "observed": observed, "weight": weight}
    names = Names(**given, propensity=column)
    rows = read_pairs(table, names, features, "pairs")
    fold = _folds(rows, folds, seed)
    p = np.empty(len(rows))
    p[rows.order] = _corrected(rows, fold, folds)
    settings = {**given, "propensity": column, "features": features, "seed": seed, **settings}
    index = pairs.index if isinstance(pairs, pd.DataFrame) else None
    return Repaired(
        pd.Series(p, index=index, name="propensity"),
        audit(table, **settings),
        audit(_with(table, column, p), **settings),
    )


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with a column put in, or exchanged for one of that name."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"propensities must be the name of a column or a number for each row, got "
            f"{type(values).__name__} of something else ({first_line(error)})."
        ) from error
    if found.shape != (table.num_rows,):
        raise InputError(
            f"propensities must be a number for each of the {table.num_rows} rows of pairs, got "
            f"shape {found.shape}; give them in the order of the rows."
        )
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, pa.array(found))
    return table.append_column(name, pa.array(found))


def _folds(rows: AuditPairs, folds: int, seed: int) -> Integers:
    """A fold for each row, by a hash of its pair."""
    keys = torch.from_numpy(rows.users * len(rows.item_ids) + rows.items)
    mixed = splitmix64(keys ^ stream_key(torch.tensor([seed]), "repair"))
    return np.asarray((mixed % folds).numpy(), dtype=np.int64)


def _corrected(rows: AuditPairs, fold: Integers, folds: int) -> Floats:
    z = np.log(rows.p / (1 - rows.p))
    x = _columns(rows, z, fold, folds)
    o, w = rows.observed, rows.weight
    sums = z.copy()
    for number in range(folds):
        mine = fold == number
        if o[~mine].min() == o[~mine].max():
            raise InputError(
                "a fold of the pairs leaves rows of one kind only; give more rows or fewer folds."
            )
        sums[mine] += boosted(x[~mine], z[~mine], o[~mine], w[~mine])(x[mine])
    found = np.empty(len(z))
    for number in range(folds):
        mine = fold == number
        found[mine] = isotonic(sums[~mine], o[~mine], w[~mine]).line(sums[mine])
    return found


def _columns(rows: AuditPairs, z: Floats, fold: Integers, folds: int) -> Floats:  # [N, F]
    found = [z]
    residual = np.stack([rows.weight * rows.observed, rows.weight * rows.p])
    for index in (rows.users, rows.items):
        found.append(mean_by(index, z))
        size = int(index.max()) + 1
        sums = [np.bincount(index * folds + fold, x, size * folds) for x in residual]
        seen, expected = (s.reshape(size, folds) for s in sums)
        others = [s.sum(1, keepdims=True) - s + PRIOR for s in (seen, expected)]
        ratio = np.log(others[0] / others[1])
        found.append(ratio[index, fold])
    for column in rows.columns:
        if column.labels is None:
            found.append(column.values)
        else:
            codes = range(len(column.labels))
            found += [(column.values == code).astype(np.float64) for code in codes]
    return np.column_stack(found)
