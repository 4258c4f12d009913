"""A disk that fills up or memory that runs out ends in one sentence; what stands is whole."""

import csv
import os
import re
import resource
from itertools import repeat

import launched
import pandas as pd
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from processes import FORK

from upo import figures
from upo.core.console import explained
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.runs.metrics_csv import MetricsCsv
from upo.tables.files import read_whole
from upo.tables.writer import table_writer
from upo.training.checkpoint import load_checked, save_atomically

SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator=ips",
    "estimator.stages.propensity.epochs=2",
    "estimator.stages.refine.epochs=2",
    "estimator.stages.debias.epochs=2",
    "seeds=2",
    "trainer.accelerator=cpu",
    "progress=false",
]


def limited(size, errors, *overrides):
    """Train where no file may grow beyond so many bytes, which ends writes as a full disk does."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    launched.train(*overrides, quiet=False)


def trained_within(size, folder):
    run, errors = folder / "run", folder / "errors"
    process = FORK.Process(target=limited, args=(size, errors, *SMALL, f"hydra.run.dir={run}"))
    process.start()
    process.join(240)
    said = errors.read_text()
    for path in (run / "checkpoints").glob("[!.]*"):
        load_checked(path)
    if (run / "results.csv").exists():
        with (run / "results.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 2
    metrics = run / "logs" / "metrics.csv"
    if metrics.exists():
        assert metrics.read_text().endswith("\n")
    assert not list(run.rglob(".*.????????"))
    assert not (run / ".lock").exists()
    if process.exitcode:
        assert process.exitcode == 1
        assert re.fullmatch(r"error: \S+/run\S*: File too large; free space there .*\n", said)
    return process.exitcode


@pytest.mark.parametrize("size", [6000, 40_000])
def test_a_run_on_a_full_disk_ends_in_a_sentence_and_leaves_whole_files(size, tmp_path):
    assert trained_within(size, tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [2**k for k in range(8, 22)])
def test_fourteen_sizes_of_a_disk(size, tmp_path):
    assert trained_within(size, tmp_path) == int(size < 2**18)


@pytest.fixture
def full():
    """No file grows beyond 100 bytes within a block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tabled(path):
    with table_writer(path, "out") as writer:
        writer.write(pa.table({"user": list(range(1000))}))


WRITERS = {
    "a.txt": lambda path: write_atomically(path, "x" * 1000),
    "a.pt": lambda path: save_atomically({"x": torch.zeros(1000)}, path),
    "a.png": lambda path: figures.save(Figure(), path),
    "a.csv": tabled,
    "a.csv.gz": tabled,
    "a.parquet": tabled,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_keeps_the_old_file_and_names_it(name, tmp_path, full):
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises((OSError, InputError)) as error:
        WRITERS[name](path)
    assert str(path) in explained(error.value)
    assert "File too large" in explained(error.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_of_metrics_that_does_not_fit_is_taken_back(tmp_path, full):
    logger = MetricsCsv(str(tmp_path))
    path = tmp_path / "logs" / "metrics.csv"
    rows = map(logger.log_metrics, repeat({"loss": 0.5}), range(100))
    with pytest.raises(OSError, match="File too large") as error:
        list(rows)
    assert error.value.filename == str(path)
    assert len(path.read_bytes()) <= 100
    assert set(pd.read_csv(path)["loss"]) == {0.5}
    assert path.read_text().endswith("\n")


def test_memory_that_runs_out_is_no_damage_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")

    def concat_tables(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 131072 failed")

    monkeypatch.setattr(pa, "concat_tables", concat_tables)
    with pytest.raises(MemoryError) as error:
        read_whole(tmp_path / "log.csv", "log", ["user", "item"])
    assert explained(error.value).startswith("memory ran out (malloc of size 131072 failed); try")


def test_torchs_allocator_is_understood():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.int8)
    assert explained(error.value).startswith("memory ran out (")
