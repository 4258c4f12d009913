"""A resumed run computes what was begun: logs go on, other settings and other data are refused."""

import csv
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from launched import NAIVE
from omegaconf import OmegaConf

from upo import cli
from upo.runs import experiment, fitting
from upo.runs.loggers import _taken_up, _wandb_account
from upo.runs.metrics_csv import MetricsCsv
from upo.training.callbacks import History
from upo.training.checkpoint import load_checked, save_atomically
from upo.training.stage import StageModule

ROOT = Path(__file__).resolve().parents[2]


def train(monkeypatch, *overrides):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    cli.main()


def begun(monkeypatch, folder, *overrides):
    """A run that its time limit ended after an epoch of the first stage."""
    limit = "trainer.max_time='00:00:00:09'"
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "time_limit", lambda _: 1e-9)
        with pytest.raises(SystemExit) as stop:
            train(patch, *NAIVE, limit, f"hydra.run.dir={folder}", *overrides)
    assert stop.value.code == 75


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        begun(patch, folder)
    return folder


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("protocol=paper", "protocol.name was holdout when the run was started and is paper now"),
        ("dataset.world_seed=7", "dataset.world_seed was 0 when the run was started and is 7 now"),
        ("estimator.stages.debias.epochs=5", "epochs was 3 when the run was started and is 5 now"),
        ("trainer.precision=64-true", "trainer.precision was 32-true"),
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run was not set"),
        ("seeds=2", "seeds was 1"),
        ("dataset=coat", "dataset.name was synthetic"),
        ("diagnostics=table1_compat", "diagnostics was correct"),
    ],
)
def test_what_would_compute_something_else_is_refused(monkeypatch, capsys, run, override, said):
    if override == "dataset=coat":  # whose settings are others
        few = [word for word in NAIVE if not word.startswith("dataset.")]
        monkeypatch.setattr(cli, "recorded", lambda *_: few)
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, f"resume={run}", override)
    assert stop.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence
    assert "leave it out, or start a new run" in sentence
    assert not (run / "results.csv").exists()


def test_where_and_how_loudly_a_run_goes_on_is_free(monkeypatch, tmp_path):
    begun(monkeypatch, tmp_path / "run")
    free = ["trainer.max_time=null", "logger=none", "compile=false", "trainer.replay=false"]
    train(monkeypatch, f"resume={tmp_path / 'run'}", *free, "progress=true")
    assert (tmp_path / "run" / "results.csv").exists()


def test_another_log_under_the_same_name_is_refused(monkeypatch, tmp_path, capsys):
    rows = [f"u{k % 7},i{k % 11},{k % 5 + 1}\n" for k in range(77)]
    log, folder = tmp_path / "log.csv", tmp_path / "run"
    log.write_text("user,item,rating\n" + "".join(rows))
    words = [*(w for w in NAIVE if not w.startswith("dataset.")), "dataset=table"]
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "time_limit", lambda _: 1e-9)
        where = [f"dataset.train={log}", f"hydra.run.dir={folder}"]
        with pytest.raises(SystemExit):
            train(patch, *words, *where, "trainer.max_time='00:00:00:09'")
    capsys.readouterr()
    log.write_text("user,item,rating\n" + "".join(rows[:-1]))
    with pytest.raises(SystemExit):
        train(monkeypatch, f"resume={folder}")
    assert "was written while training on another log" in capsys.readouterr().err


def test_a_second_estimator_that_is_finished_is_not_trained_again(monkeypatch, tmp_path):
    train(monkeypatch, *NAIVE, "compare_with=ips", f"hydra.run.dir={tmp_path}")
    first = [path.read_text() for path in sorted(tmp_path.rglob("results.csv"))]
    assert len(first) == 2

    def training_step(*_):
        raise AssertionError

    monkeypatch.setattr(StageModule, "training_step", training_step)
    train(monkeypatch, f"resume={tmp_path}")
    assert [path.read_text() for path in sorted(tmp_path.rglob("results.csv"))] == first


def test_a_second_estimator_goes_on_where_it_was_stopped(monkeypatch, tmp_path, capsys):
    limits = iter([None, 1e-9])
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "time_limit", lambda _: next(limits))
        words = ["compare_with=dr_jl", "trainer.max_time='00:00:00:09'"]
        with pytest.raises(SystemExit) as stop:
            train(patch, *NAIVE, *words, f"hydra.run.dir={tmp_path}")
    assert stop.value.code == 75
    assert f"resume={tmp_path} goes on from there." in capsys.readouterr().err
    (path,) = (tmp_path / "dr_jl" / "checkpoints").iterdir()
    assert load_checked(path)["next_epoch"] == 1
    begun = []
    real = StageModule.on_train_epoch_start
    monkeypatch.setattr(
        StageModule,
        "on_train_epoch_start",
        lambda self: (begun.append((self.stage, self.epoch)), real(self))[1],
    )
    train(monkeypatch, f"resume={tmp_path}", "trainer.max_time=null")
    assert begun[0] == (path.stem, 1)


def test_a_new_run_in_an_old_folder_leaves_no_stage_of_the_old_one(monkeypatch, tmp_path):
    words = ["estimator=ips", "estimator.fit.epochs=2"]
    train(monkeypatch, *NAIVE, *words, f"hydra.run.dir={tmp_path}")
    begun(monkeypatch, tmp_path, *words)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["propensity.pt"]
    assert not (tmp_path / "results.csv").exists()


def test_a_resumed_run_has_the_log_of_one_that_was_not_stopped(monkeypatch, tmp_path):
    train(monkeypatch, *NAIVE, f"hydra.run.dir={tmp_path / 'whole'}")
    begun(monkeypatch, tmp_path / "part")
    first = logged(tmp_path / "part")
    assert len(first) == 1
    train(monkeypatch, f"resume={tmp_path / 'part'}", "trainer.max_time=null")
    assert logged(tmp_path / "part")[0] | first[0] == logged(tmp_path / "part")[0]
    assert logged(tmp_path / "part") == logged(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore")  # of the logger's own dependencies
def test_steps_of_tensorboard_go_on(monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    begun(monkeypatch, tmp_path, "logger=tensorboard")
    train(monkeypatch, f"resume={tmp_path}", "trainer.max_time=null")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("debias/val/log_loss")]
    assert len(steps) == 3
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]]


def test_a_run_of_wandb_keeps_its_id(tmp_path):
    node = OmegaConf.create({"save_dir": str(tmp_path)})
    target = "lightning.pytorch.loggers.WandbLogger"
    assert _taken_up(node, target) == {}
    for name in ("offline-run-20261127_120000-abc12345", "run-20261127_110000-zzz99999"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert _taken_up(node, target) == {"id": "abc12345", "resume": "allow"}
    node.id = "mine"
    assert _taken_up(node, target) == {}


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_key_is_found_where_wandb_finds_it(monkeypatch, tmp_path, mode):
    names = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC")
    for name in (*names, "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not _wandb_account()
    own = "machine wandb.example.org\n  login user\n  password 0123\n"
    (tmp_path / ".netrc").write_text(own)
    (tmp_path / ".netrc").chmod(mode)
    assert not _wandb_account()  # of another server
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        assert _wandb_account()
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.example.org\n")
    assert _wandb_account()
    settings.unlink()
    (tmp_path / "keys").write_text(own.replace("wandb.example.org", "api.wandb.ai"))
    monkeypatch.setenv("NETRC", str(tmp_path / "keys"))
    assert _wandb_account()
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert _wandb_account()


def logged(folder):
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_go_on_after_the_last_whole_row(tmp_path):
    first = MetricsCsv(str(tmp_path))
    for epoch in range(3):
        first.log_metrics({"loss": epoch / 3, "epoch": epoch}, step=epoch + 1)
    path = tmp_path / "logs" / "metrics.csv"
    before = path.read_bytes()
    path.write_bytes(before + b"3,0.9")  # cut by a kill
    again = MetricsCsv(str(tmp_path), resume=True)
    for epoch in range(1, 4):  # two are repeated
        again.log_metrics({"loss": epoch / 3, "epoch": epoch}, step=epoch + 1)
    again.log_metrics({"auc": 0.5})
    again.log_metrics({"auc": 0.5})
    rows = logged(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", ""]
    assert [float(row["loss"]) for row in rows[:4]] == [0, 1 / 3, 2 / 3, 1]
    assert [row["auc"] for row in rows] == ["", "", "", "", "0.5"]
    MetricsCsv(str(tmp_path)).log_metrics({"loss": 1.0}, step=1)  # a new run
    assert len(logged(tmp_path)) == 1


def test_starting_processes_is_no_training(monkeypatch, tmp_path):
    fit = fitting.fit

    def slow(trainer, module):
        time.sleep(1)
        fit(trainer, module)

    monkeypatch.setattr(fitting, "fit", slow)
    train(monkeypatch, *NAIVE, "logger=none", f"hydra.run.dir={tmp_path}")
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["train_seconds"]) < 1


def of_epochs(count, path):
    history = History()
    for epoch in range(count):
        history.epochs.append(epoch)
        for name in ("loss", "log_loss"):
            history._logs.setdefault(name, type(history._residuals)()).append(torch.rand(10))
        history._residuals.append(torch.rand(10, 5))
    save_atomically({"schema": 1, "history": history.state_dict()}, path)
    return history


def test_a_checkpoint_of_many_epochs_has_as_many_parts_as_one_of_few(tmp_path):
    parts = []
    for count in (1, 17, 400):
        kept = of_epochs(count, tmp_path / "a.pt")
        with zipfile.ZipFile(tmp_path / "a.pt") as archive:
            parts.append(len(archive.namelist()))
        found = History()
        found.load_state_dict(load_checked(tmp_path / "a.pt")["history"])
        assert found.epochs == kept.epochs
        assert torch.equal(torch.stack(found.logs["loss"]), torch.stack(kept.logs["loss"]))
        assert torch.equal(torch.stack(found.residuals), torch.stack(kept.residuals))
    assert parts[0] == parts[1] == parts[2]


def test_a_history_of_an_older_version_is_read():
    old = {
        "epochs": [0, 1],
        "logs": {"loss": [torch.zeros(2), torch.ones(2)]},
        "residuals": [],
    }
    history = History()
    history.load_state_dict(old)
    assert history.epochs == [0, 1]
    assert torch.equal(torch.stack(history.logs["loss"]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert history.residuals == []
