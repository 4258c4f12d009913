"""A Series beside a frame goes by its index, or is refused; all else goes by position."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from upo import InputError
from upo.tables.aligned import aligned

FRAME = pd.DataFrame({"user": ["a", "b", "c"]}, index=[4, 9, 2])


def taken(values, frame=FRAME):
    return np.asarray(aligned(values, frame, "propensity", "log")).tolist()


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 0.2, 0.3],
        np.array([0.1, 0.2, 0.3]),
        pl.Series([0.1, 0.2, 0.3]),
        pd.Series([0.1, 0.2, 0.3], index=FRAME.index),
        pd.Series([0.3, 0.1, 0.2], index=[2, 4, 9]),
        pd.Series([0.3, 0.1, 0.2], index=[2.0, 4.0, 9.0]),
        pd.Series([0.1, 0.2, 0.3]),  # labels that nobody chose
    ],
    ids=["list", "array", "polars", "equal", "another order", "floats", "default"],
)
def test_every_row_gets_its_own(values):
    assert taken(values) == [0.1, 0.2, 0.3]


def test_a_frame_without_an_index_takes_all_by_position():
    shuffled = pd.Series([0.3, 0.1], index=[1, 0])
    assert taken(shuffled, pl.DataFrame({"user": ["a", "b"]})) == [0.3, 0.1]


def test_a_shuffled_frame_of_a_default_index_is_followed():
    frame = FRAME.reset_index(drop=True)
    values = pd.Series([0.1, 0.2, 0.3])
    assert taken(values, frame.iloc[[2, 0, 1]]) == [0.3, 0.1, 0.2]


def test_repeated_labels_serve_where_they_are_the_same():
    frame = FRAME.set_axis([1, 1, 2])
    assert taken(pd.Series([0.1, 0.2, 0.3], index=[1, 1, 2]), frame) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("labels", "frame"),
    [
        ([4, 9, 3], FRAME),
        ([4, 9, 9], FRAME),
        ([0, 2, 1], FRAME),  # somebody's order, not the rows'
        ([2, 1, 1], FRAME.set_axis([1, 1, 2])),
        ([4, 9, 2, 5], FRAME),
        (range(4), FRAME),
        (range(2), FRAME),
        (["4", "9", "2"], FRAME),
    ],
)
def test_other_labels_are_refused_in_a_sentence_that_names_both(labels, frame):
    with pytest.raises(InputError) as error:
        taken(pd.Series(0.5, index=labels), frame)
    sentence = str(error.value)
    first, row = next(iter(labels)), frame.index[0]
    assert f"propensity is a Series of {len(labels)} values with the index ({first}, " in sentence
    assert f"log has 3 rows with the index ({row}, " in sentence
    assert "propensity.to_numpy()" in sentence
