"""Each function of upo.functional says its shapes, what it raises, and where it comes from."""

import ast
import importlib
import inspect
import pkgutil
import re

import pytest

import upo.functional

# arithmetic that belongs to no paper
PLAIN = {
    "bin_sums",
    "bins_from_edges",
    "clip_propensity",
    "cross_entropy",
    "equal_mass_bins",
    "equal_mass_edges",
    "lower_clip",
    "sigmoid",
    "squared_error",
    "unit_range",
}


def functions():
    for module in pkgutil.iter_modules(upo.functional.__path__, "upo.functional."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            defined_here = getattr(thing, "__module__", None) == module.name
            if inspect.isfunction(thing) and defined_here and not name.startswith("_"):
                yield thing


FUNCTIONS = sorted(functions(), key=lambda f: f.__name__)
each = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@each
def test_its_shapes_are_said(function):
    text = inspect.getsource(function)
    assert re.search(r"\[(R|B|N|U|I|\.\.\.)[,\]]|any shape|same shape", text)


@each
def test_its_source_is_said(function):
    stated = re.search(r"^ *Source: \S", inspect.getdoc(function), re.MULTILINE)
    assert bool(stated) != (function.__name__ in PLAIN)


@each
def test_what_it_raises_is_said(function):
    tree = ast.parse(inspect.getsource(function))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    stated = inspect.getdoc(function).partition("Raises:")[2]
    assert {name for name in raised if name not in stated} == set()


def test_plain_helpers_are_still_there():
    assert {function.__name__ for function in FUNCTIONS} >= PLAIN
