"""Four processes on one run folder, one cache, one search and one benchmark."""

import csv
import os
import re
import sys

import pytest
from launched import NAIVE
from processes import FORK

from upo.core.locks import NAME
from upo.training.checkpoint import load_checked

COUNT = 4
USED = r"error: .* (is|are) in use by process \d+ on \S+; .*\n"


def called(command, words, errors, gate):
    """A command in this process, begun when all are ready."""
    os.setpgid(0, 0)
    os.chdir(errors.parent)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["upo", command, *words]
    from upo.__main__ import main

    gate.wait()
    sys.exit(main())


def together(command, words, folder):
    """What each says that was refused; one at least is done."""
    gate = FORK.Barrier(COUNT)
    errors = [folder / f"errors-{k}" for k in range(COUNT)]
    processes = [FORK.Process(target=called, args=(command, words, e, gate)) for e in errors]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    said = []
    for process, path in zip(processes, errors, strict=True):
        assert process.exitcode in (0, 1), path.read_text()
        if process.exitcode:
            said.append(path.read_text())
    assert len(said) < COUNT
    assert not [text for text in said if not re.fullmatch(USED, text)], said
    assert not [path for path in folder.rglob("*.lock") if path.is_file()]
    assert not list(folder.rglob(".*.????????"))
    return said


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_four_runs_in_one_folder(tmp_path):
    run = tmp_path / "run"
    together("train", [*NAIVE, "logger=none", f"hydra.run.dir={run}"], tmp_path)
    assert len(rows(run / "results.csv")) == 1
    assert load_checked(run / "checkpoints" / "debias.pt")["done"]
    assert not (run / NAME).exists()


@pytest.mark.slow
def test_four_searches_in_one_place(tmp_path):
    small = [word for word in NAIVE if not word.startswith("figures")]
    together("tune", [*small, "trials=2", "batch=2", f"out={tmp_path / 'out'}"], tmp_path)
    (found,) = (tmp_path / "out").rglob("*.yaml")
    assert "init_scale" in found.read_text()


@pytest.mark.slow
def test_four_benchmarks_in_one_place(tmp_path):
    small = [word for word in NAIVE if not word.startswith(("figures", "estimator="))]
    words = [*small, "estimators=naive", f"out={tmp_path / 'out'}"]
    together("benchmark", words, tmp_path)
    assert len(rows(tmp_path / "out" / "synthetic-holdout.csv")) == 1
