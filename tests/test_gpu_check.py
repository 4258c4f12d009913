"""The check of a GPU, tried on the CPU: it tells what failed, and what it had no time for."""

import json
import math

import pytest
from gpu import check, parts


def task(part, name):
    return check.Task(part, "cpu", [name], math.inf)


def test_what_is_out_of_its_bound_fails(monkeypatch):
    monkeypatch.setattr(parts, "DOUBLE", -1.0)
    lines = check._lines(task(check.rows, "naive"))
    assert [(line.check, line.passed) for line in lines] == [("float64", False), ("float32", True)]


def test_a_part_that_raises_fails_alone():
    (line,) = check._lines(task(check.rows, "no_such_row"))
    assert line.passed is False
    assert "no_such_row" in line.note


@pytest.mark.parametrize("name", ["naive", "upo_ips"])
def test_a_killed_run_is_resumed_to_the_last_bit(name):
    (line,) = check.resumed("cpu", [name])
    assert line.passed


def test_one_call_prints_a_table_and_writes_it(tmp_path, capsys):
    path = tmp_path / "check.json"
    assert check.main(["--rows", "naive", "--seconds", "-1", "--out", str(path)]) == 0
    written = json.loads(path.read_text())
    assert {line["note"] for line in written["lines"]} == {"skipped: no time left"}
    said = capsys.readouterr().out
    assert said.count("\n") == len(written["lines"]) + 2
