from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.tables import numbering as id_map
from upo.tables.ids import Places, joint_index
from upo.tables.kinds import NoIdError, as_whole_numbers
from upo.tables.numbering import Numbered, Numbering, join_ids

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
COLUMNS = st.one_of(
    st.lists(st.lists(TEXT, max_size=6), max_size=4),
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6), max_size=4),
)


def numbered(blocks, kind=None, *, parse=False):
    numbering = Numbering(parse=parse)
    for block in blocks:
        numbering.add(pa.array(block, kind))
    return numbering.result()


def kind_of(blocks):
    return pa.string() if any(isinstance(x, str) for b in blocks for x in b) else pa.int64()


@settings(derandomize=True, deadline=None)
@given(COLUMNS)
def test_indices_are_places_in_the_sorted_ids(blocks):
    """Against sorting and a dict; text sorts as Python sorts it, by code point."""
    rows = [x for block in blocks for x in block]
    column = numbered(blocks, kind_of(blocks))
    assert [column.values[n] for n in column.numbers] == rows
    (index,), ids = join_ids([column])
    expected = sorted(set(rows))
    assert ids.tolist() == expected
    place = {value: k for k, value in enumerate(expected)}
    assert index.tolist() == [place[x] for x in rows]
    assert index.dtype == torch.int32


CLOSE = st.integers(-(2**63), 2**63 - 50).flatmap(
    lambda low: st.lists(st.lists(st.integers(low, low + 40), max_size=6), max_size=5)
)


@settings(derandomize=True, deadline=None)
@given(CLOSE, st.sampled_from([0, 3]), st.sampled_from([5, 20, 2**27]), st.booleans())
def test_dense_ids_are_numbered_as_a_dictionary_would(blocks, few, close, mixed):
    """With dictionaries from the start, from a block on, and with none at all."""
    if mixed:
        blocks = [*blocks, [-(2**62)]]
    plain, ids = join_ids([numbered(blocks, pa.int64())])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_map, "FEW", few)
        patch.setattr(id_map, "CLOSE", close)
        patch.setattr(id_map, "BLOCK", 3)
        column = numbered(blocks, pa.int64())
        rows = [x for block in blocks for x in block]
        assert column.values[column.numbers].tolist() == rows
        dense, theirs = join_ids([column])
    assert torch.equal(dense[0], plain[0])
    assert theirs.tolist() == ids.tolist()


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.int64()])
def test_whole_numbers_of_any_width_are_dense(kind, monkeypatch):
    monkeypatch.setattr(id_map, "FEW", 1)
    monkeypatch.setattr(id_map, "_distinct", None)  # no dictionary is asked
    column = numbered([[7, 3, 7], [100, 5]], kind)
    assert column.values.tolist() == [3, 5, 7, 100]
    assert column.numbers.tolist() == [2, 0, 2, 3, 1]
    assert column.values.dtype == np.int64


def test_dense_ids_give_way_to_gaps_text_and_huge_numbers(monkeypatch):
    monkeypatch.setattr(id_map, "FEW", 1)
    for more in ([None, 4], ["a"], [2**64 - 1], [2**40]):
        kind = pa.uint64() if more == [2**64 - 1] else None
        numbering = Numbering()
        numbering.add(pa.array([9, 4]))
        numbering.add(pa.array(more, kind))
        column = numbering.result()
        found = [str(column.values[n]) for n in column.numbers]
        assert found[:2] == ["9", "4"]
        assert found[-1] == str(more[-1])


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 20), min_size=1))
def test_a_later_column_adds_its_own_ids_behind(train, test):
    (first, second), ids = join_ids([numbered([train]), numbered([test])])
    assert ids.tolist() == sorted(set(train)) + sorted(set(test) - set(train))
    assert ids[first.numpy()].tolist() == train
    assert ids[second.numpy()].tolist() == test


def test_numbers_beside_text_become_text():
    (first, second), ids = join_ids([numbered([[7, 11]]), numbered([["u3", "7"]])])
    assert ids.tolist() == ["11", "7", "u3"]
    assert (first.tolist(), second.tolist()) == ([1, 0], [2, 1])


def test_numbers_beside_text_that_spells_numbers_are_numbers():
    (first, second), ids = join_ids([numbered([[11, 7]]), numbered([["7.0", "9", "7"]])])
    assert ids.tolist() == [7, 11, 9]
    assert (first.tolist(), second.tolist()) == ([1, 0], [0, 2, 0])


def test_rows_beyond_one_block(monkeypatch):
    monkeypatch.setattr(id_map, "BLOCK", 3)
    (index,), ids = join_ids([numbered([[5, 3, 5], [4, 3, 9, 5], [9]])])
    assert ids[index.numpy()].tolist() == [5, 3, 5, 4, 3, 9, 5, 9]


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["7", "0", "-3", "9" * 18], True),
        (["7", "007"], False),
        (["7", "-0"], False),
        (["7", "+7"], False),
        (["7", "7\n"], False),
        (["7", "٣"], False),  # a digit of another script
        (["7", "9" * 19], False),
        (["7", ""], False),
        (["7", "7.5"], False),
        (["7", "7."], False),
    ],
)
def test_text_is_a_number_only_where_every_id_is_a_plain_one(texts, whole):
    ids = as_whole_numbers(pa.array(texts))
    assert pa.types.is_integer(ids.type) == whole
    assert [str(x) for x in ids.to_pylist()] == texts  # nothing is lost
    # one block with and one without: the column decides as a whole
    assert numbered([texts[:1], texts[1:]], pa.string(), parse=True).values.tolist() == (
        [int(x) for x in texts] if whole else texts
    )


def test_text_stays_text_unless_asked():
    assert numbered([["7", "8"]]).values.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([2.0, 1.0, 2.0]), np.array([2, 1])),
        (pa.array([-0.0, 0.0, 1.0]), np.array([0, 1])),
        (pa.array([2.0, 1.0], pa.float32()), np.array([2, 1])),
        (pa.array([Decimal("2.00"), Decimal("1.00")]), np.array([2, 1])),
        (pa.array([2**64 - 1, 3], pa.uint64()), [str(2**64 - 1), "3"]),
        (pa.array([3, 2], pa.uint8()), np.array([3, 2])),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([b"b", b"a"]), ["b", "a"]),
        (pa.array([date(2024, 1, 2), date(2024, 1, 1)]), ["2024-01-02", "2024-01-01"]),
        (
            pa.array([datetime(2024, 1, 2, 3, 4, 5, 600000), datetime(2024, 1, 1)]),
            ["2024-01-02 03:04:05.6", "2024-01-01 00:00:00"],
        ),
        (pa.DictionaryArray.from_arrays([1, 0, 1], ["p", "q", "unused"]), ["q", "p"]),
        (pa.array(["a\n", "a\r\nb"]), ["a\n", "a\r\nb"]),
    ],
    ids=["whole floats", "zeros", "float32", "decimals", "huge", "unsigned", "flags", "bytes",
         "days", "times", "categories", "line ends"],
)  # fmt: skip
def test_ids_of_any_type(values, expected):
    column = Numbered.of(pa.chunked_array([values]))
    assert column.values.tolist() == list(expected)
    if isinstance(expected, np.ndarray):
        assert column.values.dtype == expected.dtype
        assert column.values[column.numbers].tolist() == [int(x) for x in values.to_pylist()]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_the_same_in_any_unit(unit):
    times = pa.array([datetime(2024, 1, 2, 3, 4, 5), datetime(2024, 1, 2)]).cast(pa.timestamp(unit))
    assert Numbered.of(pa.chunked_array([times])).values.tolist() == [
        "2024-01-02 03:04:05",
        "2024-01-02 00:00:00",
    ]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.array([2.5, 1.0]), "2.5, a number with a fraction"),
        (pa.array([1e300]), "where neighbours are one and the same"),
        (pa.array([2.0**24, 1], pa.float32()), "float numbers of 16,777,216 and more"),
        (pa.array([float("inf")]), "inf"),
        (pa.array([Decimal("1.5")]), "fractions"),
        (pa.array([timedelta(1)]), "duration"),
        (pa.array([[1]]), "list"),
        (pa.array([{"a": 1}]), "struct"),
        (pa.array([b"\xff"]), "bytes that are no text"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_by_value_is_no_id(values, reason):
    with pytest.raises(NoIdError, match=reason):
        Numbered.of(pa.chunked_array([values]))


def test_numbers_are_one_however_they_are_spelled():
    column = numbered([["7", "7.0"], ["8", "7.00"]], parse=True)
    assert column.values.tolist() == [7, 8]
    assert column.numbers.tolist() == [0, 0, 1, 0]
    places = Places(np.array([0, 7, 8]))
    for asked in (["8.0", "7", "9", "-0.0", "007", " 7"], [8.0, 7.0, 9.0, -0.0, 70.0, 71.0]):
        found = places.find(pa.chunked_array([pa.array(asked)]))
        assert found.tolist() == [2, 1, -1, 0, -1, -1]
    text = Places(np.array(["7", "a"], dtype=object))
    assert text.find(pa.chunked_array([pa.array([7.0, 8.0])])).tolist() == [0, -1]
    index, count = joint_index([pa.chunked_array([[x]]) for x in ("7", "7.0")])
    assert (index[0].tolist(), index[1].tolist(), count) == ([0], [0], 1)


def test_nothing_at_all():
    assert len(Numbering().result().numbers) == 0
    assert len(numbered([[], [None, None], []], pa.int64()).numbers) == 2
    (index,), ids = join_ids([Numbering().result()])
    assert (len(index), len(ids)) == (0, 0)
