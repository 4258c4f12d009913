"""Ctrl-C and SIGTERM end training at once, with 130 and 143, and lose no epoch that was written."""

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from processes import begin, start

import upo
from upo.core.console import Terminated, sentences, signals_first, terminable
from upo.data.world import SyntheticWorld
from upo.runs.rows import told
from upo.tables.writer import table_writer
from upo.training.callbacks import ReplicaSelection
from upo.training.checkpoint import load_checked, save_atomically

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator=ips",
    "estimator.fit.epochs=2",
    "estimator.stages.debias.epochs=20",
    "seeds=2",
    "progress=false",
    "figures=false",
    "trainer.accelerator=cpu",
]
LONG = [*SMALL, "estimator.stages.debias.epochs=100000", "estimator.stages.debias.patience=0"]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        del row["train_seconds"]
    return found


def finish(*overrides):
    process = start(*overrides)
    process.join(240)
    assert process.exitcode == 0


@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
def test_training_that_a_signal_ends_is_resumed_to_the_end_of_one_it_did_not(tmp_path, number):
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = start(*SMALL, f"hydra.run.dir={run}", folder=run, kill=("debias.pt", 4, number))
    process.join(60)
    assert process.exitcode == STATUS[number]
    assert not (run / "results.csv").exists()
    kept = load_checked(run / "checkpoints" / "debias.pt")
    assert not kept["done"]
    assert kept["next_epoch"] == 3
    finish(f"resume={run}")
    finish(*SMALL, f"hydra.run.dir={whole}")
    assert rows(run) == rows(whole)


def test_the_sentence_of_a_signal_says_how_to_go_on(tmp_path):
    run = tmp_path / "run"
    process = begin("train.py", *LONG, f"hydra.run.dir={run}", printed=tmp_path)
    while not (run / "checkpoints" / "debias.pt").exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143
    assert (tmp_path / "err").read_text() == (
        "error: stopped by SIGTERM; files that were written are complete; "
        f"resume={run} goes on from the last epoch.\n"
    )


def signalled_at(draw, run, seconds):
    """Send a signal at a random moment of a run; it ends with that signal's status or is done."""
    number = draw.choice(list(STATUS))
    process = start(*SMALL, f"hydra.run.dir={run}")
    process.join(draw.uniform(0.05, seconds))
    if process.is_alive():
        os.kill(process.pid, number)
    process.join(60)
    # before the command has begun, Python's own handlers answer: SIGTERM kills
    own = 1 if number == signal.SIGINT and not run.exists() else -number
    assert process.exitcode in (0, STATUS[number], own)
    for path in (run / "checkpoints").glob("[!.]*"):
        load_checked(path)
    assert not list(run.rglob(".*.????????"))  # nothing half written is left
    return process.exitcode


@pytest.mark.parametrize("seed", range(2))
def test_a_signal_at_a_random_moment_leaves_whole_files(tmp_path, seed):
    signalled_at(random.Random(seed), tmp_path / "run", 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 32))
def test_thirty_signals_at_random_moments_leave_whole_files(tmp_path, seed):
    signalled_at(random.Random(seed), tmp_path / "run", 6)


@pytest.fixture
def signalling(monkeypatch):
    """Let the second validation of a stage send this process a signal."""

    def arrange(number):
        def on_validation_end(self, trainer, module):
            real(self, trainer, module)
            if module.epoch == 1:
                signal.raise_signal(number)

        real = ReplicaSelection.on_validation_end
        monkeypatch.setattr(ReplicaSelection, "on_validation_end", on_validation_end)

    return arrange


class Signalling(io.BytesIO):
    """A file in which the ``at``-th write, from 0, brings a signal."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number = at, number

    def write(self, content):
        self.at -= 1
        if self.at == -1:
            signal.raise_signal(self.number)
        return super().write(content)


@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
@pytest.mark.parametrize("at", [0, 1, 5, 20])
def test_a_signal_within_a_write_of_torch_waits_for_its_end(number, at, monkeypatch, tmp_path):
    """Raised there, it ended in a RuntimeError, or in abort."""
    file = Signalling(at, number)
    monkeypatch.setattr("upo.training.checkpoint.atomic_file", lambda _: nullcontext(file))
    content = {"schema": 1, "table": torch.arange(100_000.0)}
    with terminable(), pytest.raises((KeyboardInterrupt, Terminated)) as stop:
        save_atomically(content, tmp_path / "a.pt")
    assert file.at < 0
    assert (stop.type is Terminated) == (number == signal.SIGTERM)
    (tmp_path / "a.pt").write_bytes(file.getvalue())
    assert torch.equal(load_checked(tmp_path / "a.pt")["table"], content["table"])


def fit():
    log = SyntheticWorld(30, 20, density=0.3).log()
    frame = {"user": log.users.numpy(), "item": log.items.numpy(), "rating": log.ratings.numpy()}
    few = {"estimator.stages.debias.epochs": 4, "trainer.accelerator": "cpu"}
    import pandas as pd

    return upo.fit(pd.DataFrame(frame), estimator="naive", overrides=few, progress=False)


def test_an_interrupt_reaches_the_caller_of_fit(signalling):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signalling(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_sigterm_within_fit_goes_to_the_handler_of_the_caller(signalling):
    signalling(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        fit()


def test_a_handler_of_the_callers_own_is_asked_and_training_goes_on(signalling):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        signalling(signal.SIGTERM)
        assert len(fit().metrics) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [1]


def test_a_signal_that_could_not_be_raised_ends_training_after_the_step(monkeypatch):
    """As in a destructor, where Python swallows exceptions."""

    def on_validation_end(self, trainer, module):
        real(self, trainer, module)
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated:
            swallowed.append(module.epoch)

    swallowed = []
    real = ReplicaSelection.on_validation_end
    monkeypatch.setattr(ReplicaSelection, "on_validation_end", on_validation_end)
    with pytest.raises(SystemExit) as stop:
        sentences(fit)
    assert stop.value.code == 143
    assert swallowed == [0]


def hides(stop):
    """A library whose tidying fails over a signal, as OmegaConf's does."""
    try:
        signal.raise_signal(stop)
    finally:
        raise ValueError("flags differ")


def test_a_signal_behind_another_error_comes_out_of_the_block():
    with pytest.raises(KeyboardInterrupt), signals_first():
        hides(signal.SIGINT)
    with pytest.raises(Terminated), terminable(), signals_first():
        hides(signal.SIGTERM)
    with pytest.raises(ValueError, match="plain"), signals_first():
        raise ValueError("plain")


def test_fit_and_load_give_the_signal_and_not_what_hides_it(monkeypatch, tmp_path):
    model = fit()
    model.save(tmp_path)
    monkeypatch.setattr("upo.api.Experiment.run", lambda *_: hides(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit()
    monkeypatch.setattr("upo.fitted.file.read_archive", lambda *_: hides(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        upo.load(tmp_path)


def test_a_signal_in_a_row_of_a_benchmark_ends_all_of_it():
    failed = {}
    with pytest.raises(KeyboardInterrupt), told("ips", failed):
        hides(signal.SIGINT)
    assert not failed


@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_signal_within_a_write_of_arrow_comes_out_as_itself(number, name, monkeypatch, tmp_path):
    """Arrow is C++ and calls the file, which is Python's."""
    table = pa.table({"user": list(range(10_000))})
    for at in range(3):
        file = Signalling(at, number)
        monkeypatch.setattr("upo.tables.writer.atomic_file", lambda _, file=file: nullcontext(file))
        with pytest.raises((KeyboardInterrupt, Terminated)) as stop, terminable():  # noqa: SIM117
            with table_writer(tmp_path / name, "out") as writer:
                writer.write(table)
        assert (stop.type is Terminated) == (number == signal.SIGTERM)
        assert file.at < 0


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_two_processes_end_together(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "train.py", *LONG, "trainer.devices=2", f"hydra.run.dir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    while not (tmp_path / "checkpoints" / "debias.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    children = subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert said.count("stopped by SIGTERM") == 1
    assert len(children) == 1
    deadline = time.monotonic() + 10  # the system needs a moment to end them
    while any(map(running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
