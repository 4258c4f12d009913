"""Loggers write scalars, figures and the config into the run folder, with no account and no net."""

import csv
import sys
import time
from pathlib import Path

import pytest

from upo import cli

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator=ips",
    "estimator.stages.propensity.epochs=1",
    "estimator.stages.refine.epochs=1",
    "estimator.stages.debias.epochs=2",
    "progress=false",
]


def train(monkeypatch, folder, logger):
    monkeypatch.chdir(ROOT)
    argv = ["train.py", *RUN, f"logger={logger}", f"hydra.run.dir={folder}"]
    monkeypatch.setattr(sys, "argv", argv)
    cli.main()


def test_csv(monkeypatch, tmp_path):
    train(monkeypatch, tmp_path, "csv")
    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = {name for row in rows for name, value in row.items() if value}
    assert {"debias/val/log_loss", "debias/train/prediction_loss", "final/auc"} <= logged


@pytest.mark.filterwarnings("ignore")  # of the logger's own dependencies
def test_tensorboard(monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(monkeypatch, tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "final/auc" in events.Tags()["scalars"]
    assert {"figures/reliability", "figures/curves"} <= set(events.Tags()["images"])


@pytest.mark.filterwarnings("ignore")  # of the logger's own dependencies
def test_wandb_works_offline_without_an_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(monkeypatch, tmp_path / "run", "wandb")
    (record,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    wanted = (b"final/auc", b"figures/reliability", b"synthetic/ips", b"weight_decay")
    deadline = time.monotonic() + 30  # its service flushes the record from a process of its own
    while missing := [text for text in wanted if text not in record.read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.2)
