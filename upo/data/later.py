"""The latest rows of a log as its test set, where no uniform sample was drawn."""

from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa

from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.tables.times import Times

_KEY = "dataset.test_after"


def later_as_test(data: RatingData, after: Any) -> RatingData:
    """The data with its rows from a time on as test set; what is before is the log.

    Such a test set is no sample of uniformly drawn pairs: it has the selection of the log, and
    metrics on it say how well later ratings of the same kind are predicted.

    Args:
        data: With times, without a test set.
        after: A number, or a date or timestamp as text, of the kind of the column; None leaves the
            data as they are.

    Raises:
        InputError: If there are no times or there is a test set already, if it is no time, or if
            all rows lie on one side.
    """
    if after is None:
        return data
    times = data.train.times
    if times is None:
        raise InputError(f"{_KEY}={after} needs the log's times; give dataset.time=COLUMN.")
    if data.test is not None:
        raise InputError(
            f"{_KEY}={after} makes a test set of the log, and there is one; leave dataset.test or "
            f"{_KEY} out."
        )
    start = _number(after)
    later = times >= start
    count = int(later.sum())
    if not 0 < count < len(times):
        side = "before" if count == 0 else "at or after"
        raise InputError(
            f"{_KEY}={after}: all {len(times):,} rows of the log are {side} it; choose a time "
            "within the log, spelled as its column is (a number, or a date such as 2024-01-31)."
        )
    test = replace(data.train.where(later), times=None)
    return replace(data, train=data.train.where(~later), test=test)


def _number(after: Any) -> float:
    """A time as the column of times has it."""
    if isinstance(after, date):
        after = after.isoformat()
    kind = isinstance(after, int | float | str) and not isinstance(after, bool)
    if not kind or not str(after).strip():
        raise InputError(
            f"{_KEY} must be a number or a date such as 2024-01-31, got {after!r}; or leave it out."
        )
    times = Times("test_after", _KEY)
    times.add(pa.array([str(after)]))
    return float(times.result()[0])
