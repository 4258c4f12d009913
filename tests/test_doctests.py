"""The examples in the docstrings of upo are what Python answers."""

import doctest
import importlib
import pkgutil

import pytest

import upo

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(upo.__path__, "upo.")
    if not module.name.endswith(("__main__", "upo.lenskit"))  # that one has no examples
)


def examples(module):
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_show(module):
    runner = doctest.DocTestRunner(verbose=False)
    report = []
    for test in examples(module):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_there_are_examples():
    assert sum(len(test.examples) for module in MODULES for test in examples(module)) >= 40
