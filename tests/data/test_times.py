"""Times of a log: numbers, dates and timestamps of frames, CSV and Parquet files."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from upo.data.duplicates import resolve_duplicates, resolve_times
from upo.data.frames import Columns, rating_data_from_frames
from upo.data.table import read_table
from upo.errors import InputError
from upo.tables.times import Times

DAYS = [dt.date(2024, 1, 31), dt.date(2023, 12, 1), dt.date(2024, 2, 1)]
MOMENTS = pd.to_datetime(["2024-01-31 12:00", "2023-12-01", "2024-02-01"], format="ISO8601")
NAMES = Columns("u", "i", "r", "t")


def frame(times):
    return pd.DataFrame({"u": ["b", "a", "a"], "i": [1, 1, 2], "r": [5.0, 1.0, 4.0], "t": times})


def order(data):
    """Ranks of the times of the rows (b, 1), (a, 1), (a, 2) as given."""
    times = data.train.times[[2, 0, 1]]  # sorted by user, then item
    return torch.argsort(torch.argsort(times)).tolist()


KINDS = {
    "integers": [31, 1, 32],
    "floats": [0.5, -1.0, 2e9],
    "dates": DAYS,
    "timestamps": MOMENTS,
    "zoned": MOMENTS.tz_localize("Europe/Berlin"),
    "text dates": [str(day) for day in DAYS],
    "text timestamps": ["2024-01-31T12:00:00", "2023-12-01T00:00:00", "2024-02-01T00:00:00"],
    "text with zones": ["2024-01-31T12:00:00Z", "2023-12-01T00:00:00+02:00", "2024-02-01T00:00Z"],
    "text numbers": ["31", "1", "32.5"],
    "categories": pd.Categorical(["31", "1", "32"]),
}


@pytest.mark.parametrize("times", KINDS.values(), ids=KINDS)
def test_times_of_a_frame_sort_as_they_do(times):
    assert order(rating_data_from_frames(frame(times), columns=NAMES)) == [1, 0, 2]


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
@pytest.mark.parametrize("times", KINDS.values(), ids=KINDS)
def test_times_of_a_file_are_those_of_the_frame(times, name, tmp_path):
    given = frame(times)
    if name.endswith("csv"):
        given.to_csv(tmp_path / name, index=False)
    else:
        given.to_parquet(tmp_path / name)
    assert order(read_table(tmp_path / name, columns=NAMES)) == [1, 0, 2]


WRONG = {
    "NaN": ([1.0, np.nan, 2.0], "row 2 has no t"),
    "NaT": (MOMENTS.where([True, False, True]), "row 2 has no t"),
    "empty text": (["2024-01-01", "", "2024-01-02"], "row 2 has no t"),
    "infinite": ([1.0, np.inf, 2.0], "infinite"),
    "words": (["soon", "later", "now"], "'soon', which is no time"),
    "lists": ([[1], [2], [3]], "which is no time"),
}


@pytest.mark.parametrize(("times", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_time_is_refused(times, said):
    with pytest.raises(InputError, match=said):
        rating_data_from_frames(frame(times), columns=NAMES)


def test_numbers_and_dates_are_not_mixed():
    times = Times("t", "here")
    times.add(pa.array(["2024-01-31"]))
    times.add(pa.array([""]))  # refused by another sentence
    with pytest.raises(InputError, match="both numbers and dates"):
        times.add(pa.array(["17"]))


def test_a_missing_column_and_one_of_two_names_are_refused():
    with pytest.raises(InputError, match=r"no column .?t"):
        rating_data_from_frames(frame([1, 2, 3]).drop(columns="t"), columns=NAMES)
    with pytest.raises(InputError, match="the rating and the time are columns"):
        Columns("u", "i", "r", "r")


def test_a_test_set_needs_no_times():
    data = rating_data_from_frames(frame(DAYS), frame(DAYS).drop(columns="t"), columns=NAMES)
    assert data.test.times is None


@pytest.mark.parametrize("rule", ["mean", "first", "last"])
def test_a_repeated_pair_has_the_time_of_the_rating_that_is_kept(rule):
    """The mean of its ratings is known with the latest of them."""
    users, items = torch.tensor([0, 1, 0, 0]), torch.tensor([1, 0, 1, 1])
    ratings, times = torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([7.0, 1.0, 9.0, 8.0])
    rows = resolve_duplicates(users, items, ratings, 2, rule)
    found = resolve_times(users, items, times.double(), 2, rule)
    assert found.tolist() == [{"mean": 9.0, "first": 7.0, "last": 8.0}[rule], 1.0]
    assert len(rows[2]) == len(found)


def test_times_stay_beside_their_ratings():
    data = rating_data_from_frames(frame([31, 1, 32]), columns=NAMES)
    assert data.train.ratings.tolist() == [1.0, 4.0, 5.0]
    assert data.train.times.tolist() == [1.0, 32.0, 31.0]
    kept = data.train.where(torch.tensor([True, False, True]))
    assert kept.times.tolist() == [1.0, 31.0]
