"""Settings of the trainer work or are refused in a sentence; no launcher's variable misleads."""

import csv
import json
import sys
from pathlib import Path

import pytest
from launched import NAIVE
from omegaconf import OmegaConf

import upo.runs.compose
from upo import cli
from upo.core.console import first_process
from upo.errors import InputError
from upo.runs import finished
from upo.runs.experiment import Experiment
from upo.training.settings import REFUSED, check_trainer, device_count, place, time_limit
from upo.training.trainer import make_trainer, settle

ROOT = Path(__file__).resolve().parents[2]
SMALL = [*NAIVE, "logger=none"]
LAUNCHERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS_PER_NODE"),
    *("SLURM_JOB_NAME", "JSM_NAMESPACE_RANK"),
)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No launcher's variable, and two cores, wherever the tests run."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("upo.training.settings._cores", lambda: 2)


def composed(*overrides):
    return upo.runs.compose.composed([*SMALL, *overrides])


def run(monkeypatch, folder, *overrides):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, *overrides, f"hydra.run.dir={folder}"])
    cli.main()


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_stages_decide_is_refused_with_what_decides_it(key):
    with pytest.raises(InputError, match=rf"trainer\.{key} is not for a run to set: .*; leave it"):
        check_trainer({"devices": 1, key: 1})


WRONG = {
    "unknown": ("+trainer.foo=1", "trainer.foo is unknown"),
    "precision": ("trainer.precision=12", "trainer.precision=12"),
    "accelerator": ("trainer.accelerator=gpuu", "trainer.accelerator=gpuu"),
    "minus one": ("trainer.devices=-1", "trainer.devices=-1"),
    "minus two": ("trainer.devices=-2", "trainer.devices=-2"),
    "none": ("trainer.devices=0", "trainer.devices=0"),
    "half": ("trainer.devices=1.5", "trainer.devices=1.5"),
    "words": ("trainer.devices=abc", "trainer.devices=abc"),
    "true": ("trainer.devices=true", "trainer.devices=True"),
    "more than cores": ("trainer.devices=99", "trainer.oversubscribe=true"),
    "spawn": ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn is not available"),
    "fsdp": ("trainer.strategy=fsdp", "trainer.strategy=fsdp is not available"),
    "nodes": ("trainer.num_nodes=2", "needs a launcher"),
    "no nodes": ("trainer.num_nodes=0", "at least 1"),
    "time": ("+trainer.max_time=soon", "trainer.max_time=soon is no time"),
    "no time": ("+trainer.max_time='00:00:00:00'", "leaves no time"),
    "trial": ("+trainer.fast_dev_run=-1", "true or a number"),
    "deterministic": ("+trainer.deterministic=maybe", "must be warn, true or false, got 'maybe'"),
    "benchmark": ("+trainer.benchmark=no", "trainer.benchmark must be true or false, got 'no'"),
    "anomaly": ("+trainer.detect_anomaly=no", "must be true or false, got 'no'"),
    "text to insist": ("trainer.oversubscribe=no", "must be true or false, got 'no'"),
    "top-level key": ("+seed=3", "seed is no setting of a run; did you mean seeds?"),
    "time without a folder": ("+trainer.max_time='01:00:00:00'", "this one has none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_cannot_work_is_refused_before_data_is_read(name):
    override, fragment = WRONG[name]
    config = composed(override)
    with pytest.raises(InputError) as error:
        Experiment(config)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("devices", "count"),
    [(1, 1), ("3", 3), ([0], 1), ([1, 2], 2), ("0,1", 2), ("2,", 1), ("auto", None), (-1, None)],
)
def test_devices_are_counted(devices, count):
    assert device_count(devices) == count


@pytest.mark.parametrize("given", [{"minutes": 90}, "00:01:30:00"])
def test_times_are_read(given):
    assert time_limit(OmegaConf.create({"max_time": given})) == 5400


ALONE = {"devices": 1, "num_nodes": 1}
TWO = {"devices": 2, "num_nodes": 1}


@pytest.mark.parametrize(
    ("trainer", "environment", "rank"),
    [
        (ALONE, {"RANK": "1"}, 0),
        (ALONE, {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, 0),
        (ALONE, {"LOCAL_RANK": "1"}, 0),
        (TWO, {"RANK": "1"}, 0),  # a stranger's: nobody has launched this
        (TWO, {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1),  # Lightning's second process
        (TWO, {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1"}, 1),
        (TWO, {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, 1),
        (TWO, {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, 0),
        ({"devices": 2, "num_nodes": 2}, {"NODE_RANK": "1", "LOCAL_RANK": "0"}, 2),
    ],
)
def test_the_number_of_processes_decides_who_writes(monkeypatch, trainer, environment, rank):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place(trainer) == rank


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK"),
        ({"SLURM_NTASKS": "x"}, "SLURM_NTASKS"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "x"}, "SLURM_PROCID"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "x"}, "WORLD_SIZE"),
    ],
)
def test_a_variable_that_is_no_number_is_named_where_it_is_read(monkeypatch, environment, name):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=rf"variable {name}=x is no number, .* unset {name}"):
        place(TWO)
    assert place(ALONE) == 0
    monkeypatch.setenv(name, "")
    assert place(TWO) == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"SLURM_PROCID": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
    ],
)
def test_one_device_writes_whatever_a_launcher_has_set(monkeypatch, tmp_path, environment, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run(monkeypatch, tmp_path)
    assert len(rows(tmp_path)) == 1
    assert f"Results, checkpoints and figures: {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / ".hydra" / "overrides.yaml").is_file()
    assert first_process()


def test_torchrun_and_settings_that_disagree_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun has started 2 processes"):
        check_trainer(ALONE)
    check_trainer(TWO)


def test_tasks_of_slurm_without_their_number_per_node_end_in_a_sentence(monkeypatch):
    for name, value in (("NTASKS", "2"), ("PROCID", "0"), ("LOCALID", "0"), ("NODEID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(InputError, match="--ntasks-per-node=2"):
        settle(OmegaConf.create({**TWO, "accelerator": "cpu"}))
    settle(OmegaConf.create({**ALONE, "accelerator": "cpu"}))  # a run of its own


def test_more_processes_than_cores_can_be_insisted_on():
    settle(composed("trainer.devices=3", "trainer.oversubscribe=true").trainer)


def test_what_is_passed_on_reaches_the_trainer():
    settings = {"accelerator": "cpu", "devices": 1, "precision": "64-true", "detect_anomaly": True}
    made = make_trainer(settings, logger=False, enable_checkpointing=False)
    assert made.precision == "64-true"
    assert made._detect_anomaly


@pytest.mark.parametrize("steps", ["true", "2"])
def test_a_trial_is_marked_and_never_finished(monkeypatch, tmp_path, steps):
    run(monkeypatch, tmp_path, f"trainer.fast_dev_run={steps}", "keep=true")
    count = 1 if steps == "true" else int(steps)
    assert rows(tmp_path)[0]["protocol"] == f"holdout (trial of {count} steps: fast_dev_run)"
    assert json.loads((tmp_path / "summary.json").read_text())["fast_dev_run"] == count
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / finished.NAME).exists()


def test_a_run_whose_time_is_over_is_resumed_to_the_same_end(monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("upo.runs.experiment.time_limit", lambda _: 1e-9)
        with pytest.raises(SystemExit) as stop:
            run(patch, tmp_path / "part", "trainer.max_time='00:00:00:09'")
    assert stop.value.code == 75
    said = capsys.readouterr().err
    assert "was over after epoch 1 of 3 of stage 'debias'" in said
    assert f"resume={tmp_path / 'part'} goes on" in said
    assert not (tmp_path / "part" / "results.csv").exists()
    monkeypatch.setattr(
        sys, "argv", ["train.py", f"resume={tmp_path / 'part'}", "trainer.max_time=null"]
    )
    cli.main()
    found, expected = rows(tmp_path / "part"), rows(tmp_path / "whole")
    for row in (*found, *expected):
        del row["train_seconds"]
    assert found == expected


@pytest.mark.parametrize("word", ["resume=", "resume=''"])
def test_an_empty_resume_is_no_new_run(monkeypatch, tmp_path, capsys, word):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, tmp_path / "run", word)
    assert stop.value.code == 1
    assert "resume= is empty" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_experiment_is_no_error(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "experiment=null")
    assert len(rows(tmp_path)) == 1
