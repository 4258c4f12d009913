"""A run killed at any moment and resumed ends as the run that was never killed, bit for bit."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from processes import ranks, start

from upo.training.checkpoint import load_checked

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator.stages.propensity.epochs=4",
    "estimator.stages.propensity.steps=3",
    "estimator.stages.game.epochs=4",
    "estimator.stages.game.steps=3",
    "estimator.stages.debias.epochs=8",
    "seeds=2",
    "progress=false",
    "trainer.accelerator=cpu",
]


def fresh(folder, **options):
    return start(*SMALL, f"hydra.run.dir={folder}", folder=folder, **options)


def again(folder, **options):
    """Resume; where the kill came before the run had noted its settings, start it anew."""
    saved = folder / ".hydra" / "overrides.yaml"
    if not (saved.is_file() and OmegaConf.load(saved)):
        return fresh(folder, **options)
    return start(f"resume={folder}", folder=folder, **options)


def finish(process):
    process.join(240)
    assert process.exitcode == 0


def killed_after(process, seconds):
    """Kill the process; whether it was still at work."""
    process.join(seconds)
    process.kill()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        del row["train_seconds"]
    return found


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def same(a, b):
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def check(folder, reference):
    """The folder is that of the run that was never killed, seconds aside."""
    assert rows(folder) == rows(reference)
    assert files(folder) == files(reference)
    for path in sorted((reference / "checkpoints").iterdir()):
        ours, theirs = (
            load_checked(run / "checkpoints" / path.name) for run in (folder, reference)
        )
        for content in (ours, theirs):
            del content["seconds"]
        assert same(ours, theirs), path.name
    logs = [run / "logs" / "metrics.csv" for run in (folder, reference)]
    assert logs[0].read_text() == logs[1].read_text()
    for path in reference.glob("figures/*.png"):
        assert (folder / "figures" / path.name).read_bytes() == path.read_bytes()


def readable(folder):
    """Whatever a kill left in its place is complete."""
    for path in (folder / "checkpoints").glob("[!.]*"):
        load_checked(path)
    if (folder / "results.csv").exists():
        assert len(rows(folder)) == 2


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that was never killed, and the seconds that one takes."""
    folder = tmp_path_factory.mktemp("never") / "run"
    finish(fresh(folder))
    start_time = time.monotonic()  # of a second run, with everything imported
    finish(fresh(folder.parent / "second"))
    check(folder.parent / "second", folder)
    return folder, time.monotonic() - start_time


def kill_and_resume(folder, reference, seed):
    whole, seconds = reference
    draw = random.Random(seed)
    delay = draw.uniform(0, seconds)
    attempt = 0
    while not killed_after(fresh(folder / str(attempt)), delay):  # it was done before
        delay, attempt = delay / 2, attempt + 1
    run = folder / str(attempt)
    readable(run)
    if draw.random() < 0.5:
        killed_after(again(run), draw.uniform(0, seconds))
        readable(run)
    finish(again(run))
    check(run, whole)


@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_at_a_random_moment_ends_as_if_it_was_not(tmp_path, reference, seed):
    kill_and_resume(tmp_path, reference, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 23))
def test_many_runs_killed_at_random_moments_end_as_if_they_were_not(tmp_path, reference, seed):
    kill_and_resume(tmp_path, reference, seed)


@pytest.mark.parametrize(
    "kill",
    [
        ("results.csv", 1),
        *(
            pytest.param(kill, marks=pytest.mark.slow)
            for kill in [("debias.pt", 9), ("game.pt", 2), ("summary.json", 1), ("curves.png", 1)]
        ),
    ],
    ids=lambda kill: "-".join(map(str, kill)),
)
def test_a_run_killed_while_it_writes_a_file_leaves_none_unfinished(tmp_path, reference, kill):
    process = fresh(tmp_path / "run", kill=kill)
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    unfinished = [path for path in (tmp_path / "run").rglob(".*") if path.is_file()]
    assert [path.name for path in unfinished if path.name.startswith(f".{kill[0]}.")]
    readable(tmp_path / "run")
    finish(again(tmp_path / "run"))
    check(tmp_path / "run", reference[0])


BY_ROWS = [  # at rates and penalties of each seed's own
    "fit=relative",
    "estimator.fit.penalty.rows=[0.01,0.03]",
    *(
        f"estimator.learners.{name}.optimizer.lr=[0.01,0.02]"
        for name in ("propensity", "game", "prediction", "imputation")
    ),
]


def test_steps_on_rows_killed_and_resumed_end_as_if_they_were_not(tmp_path):
    settings = [*SMALL, *BY_ROWS, "figures=false", "estimator.stages.debias.epochs=4"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    finish(start(*settings, f"hydra.run.dir={whole}", folder=whole))
    process = start(*settings, f"hydra.run.dir={run}", folder=run, kill=("debias.pt", 3))
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    assert "RowAdam" in (run / ".hydra" / "config.yaml").read_text()
    kept = load_checked(run / "checkpoints" / "debias.pt")
    moments = kept["optimizers"]["prediction"][0]
    assert moments["exp_avg_sq"].any()
    assert float(moments["step"]) > 0
    finish(again(run))
    check(run, whole)


TWO = [*SMALL, "trainer.devices=2", "figures=false", "estimator.stages.debias.epochs=4"]


def launch(folder, *overrides, kill=""):
    """Two ranks in a group of their own."""
    watched = {"LAUNCHED_FOLDER": str(folder), "LAUNCHED_KILL": kill}
    return ranks(2, "tests/launched.py", *overrides, env=watched)


def torchrun(*overrides):
    """Two processes of ``train.py``, started by torchrun with a group for each."""
    flags = ["--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *flags, "train.py", *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def ended(process):
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A run of two processes that was never killed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    assert launch(folder, *TWO, f"hydra.run.dir={folder}") == 0
    return folder


def test_two_processes_killed_while_they_train_end_as_if_they_were_not(tmp_path, of_two):
    run = tmp_path / "run"
    dead = launch(run, *TWO, f"hydra.run.dir={run}", kill="debias.pt:2")
    assert dead == -signal.SIGKILL
    readable(run)
    assert launch(run, f"resume={run}") == 0
    check(run, of_two)


@pytest.mark.slow
def test_torchrun_killed_after_its_first_checkpoint_ends_as_if_it_was_not(tmp_path, of_two):
    run = tmp_path / "run"
    process = torchrun(*TWO, f"hydra.run.dir={run}")
    while process.poll() is None and not list((run / "checkpoints").glob("[!.]*")):
        time.sleep(0.001)
    workers = subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()
    for group in (process.pid, *map(int, workers)):
        os.killpg(group, signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(workers) == 2
    assert not (run / "results.csv").exists()  # the kill came in time
    readable(run)
    ended(torchrun(f"resume={run}"))
    check(run, of_two)
