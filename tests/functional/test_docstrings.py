"""Each function of upo.functional says its shapes, its range, what it raises, its source."""

import ast
import importlib
import inspect
import pkgutil
import re

import pytest

import upo.functional

RANGES = re.compile(
    r"in [\[(]|at least|at most|of any sign|0\.\.M-1|negative|between|inside|above|ascending|sum 1",
    re.I,
)


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
    assert re.search(r"^ *Source: \S", inspect.getdoc(function), re.MULTILINE)


@each
def test_its_range_is_said(function):
    assert RANGES.search(inspect.getdoc(function))


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
