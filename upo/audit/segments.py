"""Segments of the pairs that can be named before looking at o, and the test of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from upo.audit.columns import Column
from upo.audit.inference import count_p_values
from upo.audit.pairs import AuditPairs
from upo.tables.numbering import shown

Floats = NDArray[np.float64]

FEW = 10  # a number with at most so many different values is taken value by value
RANGES = 5  # of other numbers, of about equal mass
TAILS = (0.001, 0.01, 0.1, 0.9, 0.99, 0.999)  # propensities that bins of equal mass do not part
SINGLE = 1.0  # smallest null variance of the count of a single user or item that is tested


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A partition of the pairs.

    Attributes:
        codes: ``[N]`` number of each pair's segment.
        labels: What each segment is called, as the start of a sentence.
    """

    codes: NDArray[np.int64]
    labels: list[str]


def segmentations(pairs: AuditPairs, num_bins: int) -> Iterator[Segmentation]:
    """All pairs; propensities by bin and by size; users and items by their mean; every column."""
    yield Segmentation(np.zeros(len(pairs), dtype=np.int64), ["all pairs"])
    yield _ranges(pairs.p, "pairs with propensity", num_bins)
    yield _between(pairs.p, np.array(TAILS), "pairs with propensity")
    for index, owner in ((pairs.users, "users"), (pairs.items, "items")):
        yield _ranges(mean_by(index, pairs.p), f"{owner} with mean propensity", RANGES)
    for column in pairs.columns:
        yield by_column(column)


def by_column(column: Column) -> Segmentation:
    """A segment for each label, each of few numbers, or each of five ranges."""
    start = f"{column.owner} with {column.name}"
    if column.labels is not None:
        labels = [f"{start}={label}" for label in column.labels]
        return Segmentation(column.values.astype(np.int64), labels)
    values, codes = np.unique(column.values, return_inverse=True)
    if len(values) <= FEW:
        return Segmentation(codes.astype(np.int64), [f"{start}={value:g}" for value in values])
    return _ranges(column.values, start, RANGES)


def single(pairs: AuditPairs) -> Iterator[Segmentation]:
    """Each user, then each item."""
    users = [f"user {shown(x)}" for x in pairs.user_ids]
    yield Segmentation(pairs.users, users)
    yield Segmentation(pairs.items, [f"item {shown(x)}" for x in pairs.item_ids])


def segment_counts(
    pairs: AuditPairs,
    segmentation: Segmentation,
    *,
    kind: str,
    rows: NDArray[np.bool_] | None = None,
    least: float = 0.0,
) -> pd.DataFrame:
    """A row for each segment that holds pairs.

    Args:
        pairs: Under audit.
        segmentation: The segments.
        kind: Name of the family of tests.
        rows: ``[N]``, the pairs that count; all if not given.
        least: Segments of a smaller null variance are left out (it does not depend on o).

    Returns:
        Columns ``kind, where, rows, observed, expected, rows_observed, rows_expected, difference,
        z, p_value``: observed and expected numbers of pairs of D, the count of observed rows of the
        table and its mean at correct propensities, which is what z and the p-value test, and
        difference (observed - expected) / expected.
    """
    at = slice(None) if rows is None else rows
    codes = segmentation.codes[at]

    def sums(values: Floats) -> Floats:
        total = np.bincount(codes, values[at], minlength=len(segmentation.labels))
        return np.asarray(total, dtype=np.float64)

    n, count, mean = sums(np.ones(len(pairs))), sums(pairs.observed), sums(pairs.q)
    variance = sums(pairs.variance)
    kept = (n > 0) & (variance >= least)
    p_value = count_p_values(pairs.observed[at], pairs.q[at], codes, len(n))
    observed = sums(pairs.weight * pairs.observed)
    expected = sums(pairs.weight * pairs.p)
    n, count, mean, variance, observed, expected = (
        x[kept] for x in (n, count, mean, variance, observed, expected)
    )
    return pd.DataFrame(
        {
            "kind": kind,
            "where": np.asarray(segmentation.labels, dtype=object)[kept],
            "rows": n.astype(np.int64),
            "observed": observed,
            "expected": expected,
            "rows_observed": count,
            "rows_expected": mean,
            "difference": observed / expected - 1,
            "z": (count - mean) / np.sqrt(variance),
            "p_value": p_value[kept],
        }
    )


def sentence(row: Any) -> str:
    """One finding in words; ``row`` has the columns of `segment_counts` and ``p_adjusted``.

    Where rows stand for different numbers of pairs, the rows may say another thing than the pairs:
    then those are shown, since the test is theirs.
    """
    tested, difference = row.rows_observed / row.rows_expected - 1, row.difference
    if tested * difference < 0 or abs(tested - difference) > 0.1 + 0.5 * abs(tested):
        counts = (
            f"among the rows of the table observed {_count(row.rows_observed)}, expected "
            f"{_count(row.rows_expected)} ({signed(100 * tested, '.0f')} %)"
        )
    else:
        counts = (
            f"observed {_count(row.observed)}, expected {_count(row.expected)} "
            f"({signed(100 * difference, '.0f')} %)"
        )
    return f"{row.where}: {counts}, z = {signed(row.z, '.1f')}, adjusted p {p_text(row.p_adjusted)}"


def p_text(p: float) -> str:
    """A p-value behind its sign.

    >>> p_text(0.0312), p_text(1e-9)
    ('= 0.031', '< 1e-6')
    """
    return "< 1e-6" if p < 1e-6 else f"= {p:.2g}"


def signed(value: float, spec: str) -> str:
    """A number with its sign, minus as a dash of full width.

    >>> signed(3.26, ".1f"), signed(-3.26, ".1f") == "\N{MINUS SIGN}3.3"
    ('+3.3', True)
    """
    return f"{value:+{spec}}".replace("-", "\N{MINUS SIGN}")


def mean_by(index: NDArray[np.int64], values: Floats) -> Floats:
    """The mean of each row's user (or item)."""
    sums = np.bincount(index, values)
    return np.asarray((sums / np.maximum(np.bincount(index), 1))[index], dtype=np.float64)


def _ranges(values: Floats, start: str, parts: int) -> Segmentation:
    cuts = np.unique(np.quantile(values, np.arange(1, parts) / parts))
    return _between(values, cuts[cuts < values.max()], start)


def _between(values: Floats, cuts: Floats, start: str) -> Segmentation:
    """Right-closed ranges between the cuts."""
    ends = [f"{cut:.4g}" for cut in cuts]
    labels = [f"{start} in ({a}, {b}]" for a, b in pairwise(ends)]
    if ends:
        labels = [f"{start} up to {ends[0]}", *labels, f"{start} above {ends[-1]}"]
    else:
        labels = [f"{start} {values.max():.4g}"]
    return Segmentation(np.searchsorted(cuts, values).astype(np.int64), labels)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
