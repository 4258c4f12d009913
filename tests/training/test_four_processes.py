"""Four processes on one folder, cache, search or benchmark: each ends right or with a sentence."""

import csv
import os
from pathlib import Path

import launched
import pytest
from processes import FORK

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "trainer.accelerator=cpu",
]
RUN = ["estimator=naive", "progress=false", "figures=false", "logger=none"]
FEW = "estimator.stages.debias.epochs=300"

pytestmark = pytest.mark.slow


def quietly(errors):
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def train(errors, gate, *words):
    quietly(errors)
    gate.wait(120)
    launched.train(*words, quiet=False)


def command(errors, gate, folder, name, words):
    quietly(errors)
    gate.wait(120)
    import torch

    from upo import benchmark, tuning
    from upo.core.console import command as ended

    torch.set_num_threads(1)
    os.chdir(folder)
    call = {"benchmark": benchmark.main, "tuning": tuning.main}[name]
    ended(lambda: call(words))


def four(folder, function, *args):
    """Statuses and what was said on standard error, of four that begin at once."""
    gate = FORK.Barrier(4)
    errors = [folder / f"errors{k}" for k in range(4)]
    processes = [FORK.Process(target=function, args=(path, gate, *args)) for path in errors]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [p.exitcode for p in processes], [path.read_text() for path in errors]


def one_and_three(statuses, said):
    assert sorted(statuses) == [0, 1, 1, 1]
    for status, text in zip(statuses, said, strict=True):
        if status:
            assert "is in use by process " in text
            assert "Traceback" not in text


def test_one_run_folder(tmp_path):
    run = tmp_path / "run"
    one_and_three(*four(tmp_path, train, *SMALL, *RUN, FEW, f"hydra.run.dir={run}"))
    with (run / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_one_resumed_run(tmp_path):
    run = tmp_path / "run"
    process = FORK.Process(target=launched.train, args=[*SMALL, *RUN, f"hydra.run.dir={run}"])
    process.start()
    process.join(240)
    (run / "checkpoints" / "debias.pt").unlink()
    one_and_three(*four(tmp_path, train, f"resume={run}"))


def test_one_search(tmp_path):
    words = ["estimator=naive", "trials=4", "batch=2", FEW, f"out={tmp_path / 'out'}", *SMALL]
    one_and_three(*four(tmp_path, command, tmp_path, "tuning", words))
    found = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"naive.yaml", "naive.csv", "naive.journal"}


def test_one_benchmark(tmp_path):
    words = ["estimators=naive", FEW, f"out={tmp_path / 'out'}", *SMALL]
    one_and_three(*four(tmp_path, command, tmp_path, "benchmark", words))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["synthetic-holdout.csv", "synthetic-holdout.md"]


def test_one_cache(tmp_path):
    pairs = sorted({(k % 30, k * 7 % 40) for k in range(600)})
    rows = [f"{u},{i},{(u * i) % 5 + 1}\n" for u, i in pairs]
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "".join(rows))
    words = [
        *("dataset=semisynthetic", f"dataset.base.train={tmp_path / 'log.csv'}"),
        *(f"dataset.cache_dir={tmp_path / 'cache'}", SMALL[3], *RUN),
        "estimator.stages.debias.epochs=2",
    ]
    statuses, said = four(
        tmp_path, train, *words, f"hydra.run.dir='${{new_folder:{tmp_path}/run}}'"
    )
    assert statuses == [0] * 4, said
    results = []
    for path in tmp_path.glob("run*/results.csv"):
        with path.open(newline="") as file:
            (row,) = csv.DictReader(file)
        results.append({key: row[key] for key in row if key != "train_seconds"})
    assert len(results) == 4
    assert all(row == results[0] for row in results)
    assert len(list((tmp_path / "cache").iterdir())) == 1
