"""Loggers write scalars, figures and the config into the run folder, with no account and no net."""

import csv
import os
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from upo import cli
from upo.errors import InputError
from upo.runs import loggers

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


class Stub:
    """In the place of a logger of another program."""

    def __init__(self, error=None):
        self.error = error

    def log_hyperparams(self, values):
        if self.error is not None:
            raise ValueError(f"{self.error} is\nno mode")


def stub(**settings):
    target = f"{__name__}.Stub"  # no word of wandb
    return OmegaConf.create({"logger": {"_target_": target, **settings}, "resume": None})


@pytest.mark.parametrize(("key", "mode"), [("0123", None), (None, "offline")])
def test_only_without_an_account_is_a_run_offline(monkeypatch, key, mode):
    monkeypatch.setattr(loggers, "_wandb_account", lambda: key is not None)
    monkeypatch.setattr(loggers, "instantiate", lambda *_, **__: Stub())
    monkeypatch.setenv("WANDB_MODE", "")  # so that it is put back
    monkeypatch.delenv("WANDB_MODE")
    loggers.make_loggers(stub(_target_="lightning.pytorch.loggers.WandbLogger"))
    assert os.environ.get("WANDB_MODE") == mode


def test_what_another_program_cannot_do_ends_in_a_sentence():
    with pytest.raises(InputError, match=r"^Stub cannot start \(bogus is no mode\); fix what it"):
        loggers.make_loggers(stub(error="bogus"))
    assert loggers.make_loggers(stub())


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
