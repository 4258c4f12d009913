"""What a person hands to a function of Python is taken as it is meant, or refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch

from upo.core.given import column_names, flag, listed, path_of, whole
from upo.core.seeds import parse_seeds
from upo.errors import InputError


def test_flags():
    assert flag("average", True) is True
    assert flag("average", np.bool_(False)) is False
    for value in ("no", "false", 0, None, [False]):
        with pytest.raises(InputError, match=r"^average must be True or False, got"):
            flag("average", value)


def test_whole_numbers():
    assert [whole("k", value, 1, 5) for value in (3, np.int64(3), np.float32(3), 3.0)] == [3] * 4
    for value in (0, -1, 2.5, True, None, "3", [3], np.array([3, 4]), float("inf")):
        with pytest.raises(InputError, match=r"^k must be a whole number of at least 1, got .*5"):
            whole("k", value, 1, 5)


def test_one_name_or_several():
    assert listed("features", "x") == ["x"]
    assert listed("features", ("x", "y")) == ["x", "y"]
    with pytest.raises(InputError, match=r"^features must be a name or a list of names, got 3"):
        listed("features", 3)


@pytest.mark.parametrize("name", [None, ["user"], {"user"}, True, 1.5, np.zeros(2)])
def test_names_of_columns(name):
    with pytest.raises(InputError, match=r"^item must be the name of a column, as text, got"):
        column_names(user="user", item=name)
    column_names(user="user", item=0)  # told with the columns that there are


def test_places_of_files():
    assert path_of("folder", "a") == path_of("folder", Path("a")) == Path("a")
    assert path_of("folder", b"a") == Path("a")
    for empty in ("", " "):
        with pytest.raises(InputError, match=r"^folder is empty, as from a variable that is not"):
            path_of("folder", empty)
    for value in (None, 3, ["a"]):
        with pytest.raises(InputError, match=r"^folder must be a path, as text or a Path, got"):
            path_of("folder", value)


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (np.int64(2), [0, 1]),
        (np.array([3, 5]), [3, 5]),
        (torch.tensor([3, 5]), [3, 5]),
        ([np.int32(3), 5], [3, 5]),
        (range(2, 4), [2, 3]),
        ([2**63 - 1], [2**63 - 1]),
    ],
)
def test_seeds_of_any_library(given, seeds):
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([2**63], r"below 2\*\*63, got \[9223372036854775808\]"),
        (10**12, "1,000,000,000,000 seeds are more than the 10,000"),
        ([True], "at least one seed, each an integer"),
        (np.array([0.5]), r"got \[0.5\]"),
        (None, "a count or a list of integers, got None"),
    ],
)
def test_seeds_that_are_none(given, said):
    with pytest.raises(InputError, match=said):
        parse_seeds(given)
