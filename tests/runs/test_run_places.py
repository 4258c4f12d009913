"""Folders of runs: each its own, one process in each, files whole, and a failing job alone."""

import csv
import os
import re
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import launched
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from processes import FORK

from upo import benchmark, cli, tuning
from upo.core.files import atomic_file, remove_unfinished, write_atomically
from upo.core.locks import NAME, locked
from upo.core.transcript import copied_to
from upo.errors import InputError
from upo.runs.compose import user_dir
from upo.runs.places import LONGEST, folder_name, new_folder

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator=naive",
    "estimator.stages.debias.epochs=2",
    "trainer.accelerator=cpu",
    "progress=false",
    "figures=false",
    "logger=none",
]


def train(monkeypatch, *overrides):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    cli.main()


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ended(processes):
    for process in processes:
        process.join(240)
    return [process.exitcode for process in processes]


def test_a_folder_is_anothers_only_once(tmp_path):
    with FORK.Pool(3) as pool:
        found = pool.map(new_folder, [str(tmp_path / "a" / "time")] * 12, chunksize=1)
    names = ["time", *(f"time_{k}" for k in range(2, 13))]
    assert sorted(Path(path).name for path in found) == sorted(names)


def started_together(count, folder):
    """Runs that find the same time, each with a seed of its own."""
    where = f"hydra.run.dir='${{new_folder:{folder}/time}}'"
    processes = [
        FORK.Process(target=launched.train, args=[*SMALL, f"seeds=[{seed}]", where])
        for seed in range(count)
    ]
    for process in processes:
        process.start()
    assert ended(processes) == [0] * count
    folders = list(folder.iterdir())
    assert len(folders) == count
    for each in folders:
        (row,) = rows(each)
        assert f"seeds:\n- {row['seed']}\n" in (each / ".hydra" / "config.yaml").read_text()
        assert not (each / NAME).exists()


def test_runs_of_one_second_have_folders_of_their_own(tmp_path):
    started_together(2, tmp_path / "runs")


@pytest.mark.slow
def test_six_runs_of_one_second_have_folders_of_their_own(tmp_path):
    started_together(6, tmp_path / "runs")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("", "7"),
        ("estimator=ips,seeds=[0,1]", "estimator=ips,seeds=[0,1]"),
        ("dataset.train=/home/me/a b.csv", r"dataset\.train=_home_me_a_b\.csv-[0-9a-f]{8}"),
        ("..", r"_-[0-9a-f]{8}"),
        (
            ",".join(f"estimator.learners.{name}.optimizer.lr=0.001" for name in "abcdefg"),
            r"(lr=0\.001,)+lr=0\.001-[0-9a-f]{8}",
        ),
    ],
)
def test_a_job_has_a_short_name(settings, name):
    found = folder_name(settings, "7")
    assert found == name or re.fullmatch(name, found)


def test_runs_sweeps_and_jobs_are_named_by_these():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        node = compose("train", return_hydra_config=True).hydra
    plain = OmegaConf.to_container(node, resolve=False)
    assert plain["run"]["dir"].startswith("${new_folder:outputs/")
    assert plain["sweep"]["dir"].startswith("${new_folder:multirun/")
    assert (
        plain["sweep"]["subdir"] == "${folder_name:${hydra.job.override_dirname},${hydra.job.num}}"
    )


@given(st.text(), st.text())
def test_names_of_jobs_are_safe_and_differ(one, other):
    names = [folder_name(text, "0") for text in (one, other)]
    assert (names[0] == names[1]) == ((one or "0") == (other or "0"))
    for name in names:
        assert len(name.encode()) <= LONGEST + 9
        assert not set("/\\\0\n ") & set(name)
        assert name not in (".", "..")


def hold(path, seconds, ready):
    with locked(path, "the folder", "wait"):
        ready.set()
        time.sleep(seconds)


def test_a_second_process_is_told_who_holds_a_folder_and_a_dead_one_holds_none(tmp_path):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / NAME, 60, ready))
    process.start()
    assert ready.wait(60)
    holder = f"the folder is in use by process {process.pid} on {socket.gethostname()}; wait."
    with pytest.raises(InputError) as told, locked(tmp_path / NAME, "the folder", "wait"):
        raise AssertionError
    assert str(told.value) == holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert (tmp_path / NAME).exists()
    with locked(tmp_path / NAME, "the folder", "wait"):
        assert str(os.getpid()) in (tmp_path / NAME).read_text()
    assert not (tmp_path / NAME).exists()


def test_a_run_a_benchmark_and_a_search_refuse_what_another_process_uses(
    tmp_path, monkeypatch, capsys
):
    run, out = tmp_path / "run", tmp_path / "out"
    with locked(run / NAME, "it", "wait"), pytest.raises(SystemExit) as stop:
        train(monkeypatch, *SMALL, f"hydra.run.dir={run}")
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: the run folder {run} is in use by process {os.getpid()} on ")
    assert not (run / "results.csv").exists()
    monkeypatch.chdir(tmp_path)
    words = [word for word in SMALL if not word.startswith(("logger", "estimator=", "figures"))]
    table = out / ".synthetic-holdout.lock"
    with locked(table, "it", "wait"), pytest.raises(InputError, match=r"the table .* in use by"):
        benchmark.benchmark([*words, "estimators=naive", f"out={out}"])
    best = out / "holdout" / "synthetic" / "mf" / ".naive.yaml.lock"
    with locked(best, "it", "wait"), pytest.raises(InputError, match=r"the search for .* in use"):
        tuning.tune([*words, "estimator=naive", f"out={out}"])
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_tables_and_tuned_values_lie_beside_no_file_of_the_checkout(monkeypatch):
    ignored = (ROOT / ".gitignore").read_text().split()
    assert f"/{benchmark.Settings().out.parts[0]}/" in ignored
    assert f"/{benchmark.RUNS.parts[0]}/" in ignored
    monkeypatch.delenv("UPO_CONFIG_DIR")
    assert not user_dir().is_relative_to(ROOT)


def test_what_cannot_be_written_is_named_before_work(tmp_path):
    (tmp_path / "file").touch()
    lock = tmp_path / "file" / NAME
    with (
        pytest.raises(InputError, match=r"^R cannot be written .*; fix"),
        locked(lock, "R", "wait"),
    ):
        raise AssertionError


def test_a_folder_that_is_none_is_named_before_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, *SMALL, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert stop.value.code == 1
    assert f"{tmp_path / 'file' / 'run'}: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_has_what_the_mask_leaves_and_an_old_one_keeps_its_own(tmp_path, mask):
    path = tmp_path / "a" / "results.csv"
    before = os.umask(mask)
    try:
        write_atomically(path, "1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
        path.chmod(0o640)
        write_atomically(path, "2")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "2"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_its_name_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    sync, move = os.fsync, Path.replace

    def fsync(handle):
        calls.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        sync(handle)

    def replace(self, target):
        calls.append("move")
        return move(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "a", "text")
    assert calls == [False, "move", True]


def begin_to_write(path, ready):
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        ready.set()
        time.sleep(60)


def test_only_what_dead_processes_had_begun_is_removed(tmp_path):
    ready = FORK.Event()
    process = FORK.Process(target=begin_to_write, args=(tmp_path / "a.pt", ready))
    process.start()
    assert ready.wait(60)
    (theirs,) = tmp_path.iterdir()
    assert f".a.pt.{process.pid}." in theirs.name
    (tmp_path / ".notes").touch()  # somebody's own
    (tmp_path / ".curves.png.12345.part").touch()  # of an older version
    with atomic_file(tmp_path / "b.pt") as file:
        file.write(b"1")
        remove_unfinished(tmp_path)
        assert theirs.exists()
    assert (tmp_path / "b.pt").read_bytes() == b"1"
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".notes", "b.pt"}


def test_a_failing_job_of_a_sweep_costs_only_itself(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    few = [word for word in SMALL if not word.startswith("dataset.")]
    few += ["estimator.stages.debias.epochs=1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    with pytest.raises(SystemExit) as stop:
        train(
            monkeypatch,
            "-m",
            *few,
            "dataset=yahoo,synthetic",
            "hydra.sweep.subdir=${dataset.name}",
            f"paths.data_dir={tmp_path / 'data'}",
        )
    assert stop.value.code == 1
    *_, head, line = capsys.readouterr().err.splitlines()
    assert head == "1 job of the sweep did not finish; the others are complete:"
    (failed,) = (path.parent for path in tmp_path.rglob("failed.txt"))
    assert line.startswith(f"  {failed}: ")
    assert "ydata-ymusic" in line
    log = (failed / "train.log").read_text()
    assert f"error: {line.removeprefix(f'  {failed}: ')}\n" in log
    assert len(rows(tmp_path / "sweep" / "synthetic")) == 1
    assert (
        "Results, checkpoints and figures"
        in (tmp_path / "sweep" / "synthetic" / "train.log").read_text()
    )


def test_a_wrong_value_beside_a_right_one(tmp_path, monkeypatch, capsys):
    rate = "estimator.learners.prediction.optimizer.lr"
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, *SMALL, "-m", f"{rate}=-1,0.01", f"hydra.sweep.dir={tmp_path}")
    assert stop.value.code == 1
    assert "lr must be positive and finite, got -1" in capsys.readouterr().err
    done, failed = (next(tmp_path.rglob(name)).parent for name in ("results.csv", "failed.txt"))
    assert done != failed
    assert {path.parent for path in (done, failed)} == {tmp_path}
    assert "lr=-1" in failed.name
    train(monkeypatch, *SMALL, "-m", f"{rate}=0.02", f"hydra.sweep.dir={tmp_path}")  # forgotten


def test_a_fault_of_ours_ends_its_job_alone_and_its_traceback_is_in_the_log(
    tmp_path, monkeypatch, capsys
):
    def broken(config, folder):
        if config.seeds == 1:
            raise RuntimeError("shapes differ")
        return 0.5

    monkeypatch.setattr(cli, "_task", broken)
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, *SMALL, "-m", "seeds=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "RuntimeError: shapes differ (a traceback is in train.log)" in said
    (log,) = (path.with_name("train.log") for path in tmp_path.rglob("failed.txt"))
    assert "Traceback (most recent call last)" in log.read_text()
    with pytest.raises(RuntimeError):
        train(monkeypatch, *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    assert "RuntimeError: shapes differ" in (tmp_path / "run" / "train.log").read_text()


def test_a_transcript_has_whole_lines_and_the_last_state_of_a_bar(tmp_path, capsys):
    with copied_to(tmp_path / "t"):
        sys.stdout.write("one\ntw")
        sys.stderr.write("\r 10%|#  |\r100%|###|\n\r  5%")
        sys.stdout.write("o\n")
    sys.stdout.write("after\n")
    assert (tmp_path / "t").read_text() == "one\n100%|###|\ntwo\n  5%\n"
    assert capsys.readouterr().out == "one\ntwo\nafter\n"
