"""200 malformed tables: each ends in one clear sentence or is handled as documented.

None gives a traceback, hangs, or leaves a partial file. The files go through the reader and through
``train.py``, the frames through ``upo.fit``; ``tables.py`` says which outcome each has to have.
"""

import importlib.util
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import command

import upo
from upo import cli
from upo.data.table import read_table
from upo.errors import InputError

# what is learned of a few odd rows is of no use, which a fit rightly says
pytestmark = pytest.mark.filterwarnings("ignore::upo.errors.UselessModelWarning")
ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "malformed_tables", Path(__file__).parent / "tables.py"
)
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)
CASES = list(tables.cases())
FILES = [case for case in CASES if case[1] == "file"]
FRAMES = [case for case in CASES if case[1] == "frame"]
ONCE = {case[2]: case[0] for case in reversed(FRAMES)}.values()  # one frame of each kind
# train.py says what the reader says, which every file goes through: some of each ending and outcome
THROUGH = [
    "text among ratings",
    "truncated gzip",
    "truncated Parquet",
    "folder",
    "line ends of Windows",
    "dates as ids",
]
SECONDS = 120  # a case takes one; a hang is told from a slow machine
TRAIN = ["dataset=table", "estimator=naive", "estimator.stages.debias.epochs=1", "seeds=1",
         "figures=false", "progress=false", "logger=none", "protocol.share=0.3"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_time():
    """A hang ends in an exception rather than in a stuck suite."""

    def late(*_):
        raise TimeoutError(f"no answer in {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def ids(cases):
    return {"ids": [case[0] for case in cases]}


def check_sentence(message, name):
    """One line that a terminal can show, with a remedy behind a semicolon."""
    assert message
    assert message.isprintable(), (name, message)
    assert len(message) < 700, (name, message)
    assert ";" in message, (name, message)


def test_there_are_as_many_as_promised():
    assert len(CASES) == tables.COUNT == 200
    assert {name for _, _, name, _ in CASES} == {*tables.FILES, *tables.FRAMES}


def reading(path):
    """What the reader says: the data, or a sentence."""
    try:
        return read_table(path)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(("case", "where", "name", "draw"), FILES, **ids(FILES))
def test_files(case, where, name, draw, tmp_path):
    path, outcome = tables.write(tmp_path, name, draw)
    found = reading(path)
    if outcome == tables.OK:
        assert 30 <= len(found.train) <= 40
        assert len(found.user_ids) == found.train.n_users
    else:
        check_sentence(found, name)


def train(monkeypatch, capsys, name, draw, folder):
    """``train.py`` agrees with the reader on what becomes of a file."""
    path, outcome = tables.write(folder, name, draw)
    run = folder / "run"
    monkeypatch.chdir(ROOT)
    words = [*TRAIN, f"dataset.train='{path}'", f"hydra.run.dir={run}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    if outcome == tables.OK:
        cli.main()
        assert (run / "results.csv").is_file()
        assert len((run / "users.csv").read_bytes()) > 20
    else:
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 1
        assert capsys.readouterr().err == f"error: {reading(path)}\n"
        left = {p.name for p in run.rglob("*") if p.is_file()}
        assert left <= {"train.log", "config.yaml", "hydra.yaml", "overrides.yaml"}, left
    assert not [p for p in folder.rglob(".*") if p.name != ".hydra"]  # nothing half-written


@pytest.mark.parametrize("name", THROUGH)
def test_some_files_through_train(name, tmp_path, monkeypatch, capsys):
    train(monkeypatch, capsys, name, np.random.default_rng(0), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "where", "name", "draw"), FILES, **ids(FILES))
def test_every_file_through_train(case, where, name, draw, tmp_path, monkeypatch, capsys):
    train(monkeypatch, capsys, name, np.random.default_rng(int(case[:3])), tmp_path)


def slow_if_seen_before(case):
    marks = () if case[0] in ONCE else pytest.mark.slow
    return pytest.param(*case, marks=marks, id=case[0])


@pytest.mark.parametrize(("case", "where", "name", "draw"), [*map(slow_if_seen_before, FRAMES)])
def test_frames(case, where, name, draw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome, make = tables.FRAMES[name]
    frame = make(tables.ratings(draw))
    few = {"estimator.stages.debias.epochs": 1, "protocol.share": 0.3, "trainer.accelerator": "cpu"}
    if outcome == tables.OK:
        model = upo.fit(frame, estimator="naive", overrides=few, progress=False)
        assert model.predict(frame).between(0, 1).all()
        assert len(model.recommend(frame["user"].head(2), 2, exclude_seen=False)) == 4
    else:
        with pytest.raises(InputError) as error:
            upo.fit(frame, estimator="naive", overrides=few, progress=False)
        check_sentence(str(error.value), name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["truncated Parquet", pytest.param("utf-16", marks=pytest.mark.slow)]
)
def test_true_processes_end_alike(name, tmp_path):
    _, _, _, draw = next(case for case in FILES if case[2] == name)
    path, _ = tables.write(tmp_path, name, draw)
    words = [*TRAIN, f"dataset.train={path}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = command("train.py", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "results.csv").exists()


def test_a_large_cell_costs_no_more_memory_than_it_holds(tmp_path):
    """A quote that is never closed before millions of rows does not swallow the machine."""
    path = tmp_path / "log.csv"
    path.write_bytes(b'user,item,rating\n1,1,1\n"2,1,1\n' + b"3,4,5\n" * 2_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path)
    # kilobytes: the file has 12 MB; blocks and messages may hold it some times over
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
