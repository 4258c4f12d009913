"""Runs with spread tables: killed and resumed on another number of processes, and read."""

import csv
import shutil
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from launched import NAIVE
from processes import start
from small_runs import composed

import upo
from upo import cli
from upo.errors import InputError
from upo.fitted.settings import composed_run
from upo.runs.experiment import Experiment
from upo.training.checkpoint import load_checked, load_networks

SHARDED = [
    *NAIVE,
    "seeds=2",
    "trainer.tables=sharded",
    "estimator.networks.prediction.dim=8",
    # tables that start near 0 leave Adam to divide gradients that nearly cancel by themselves
    "estimator.networks.prediction.init_scale=null",
    "estimator.networks.prediction.init_std=0.5",
]
UPO = [
    *(word for word in SHARDED if word != "estimator=naive"),
    "estimator=upo_dr",
    "estimator.stages.propensity.epochs=2",
    "estimator.stages.game.epochs=2",
    "estimator.networks.propensity.init_std=0.5",
]


def run(folder, *words, processes=1, **options):
    """A process, with others where there are several, that trains to the end or is killed."""
    count = [f"trainer.devices={processes}", "trainer.oversubscribe=true"]
    process = start(*words, *count, f"hydra.run.dir={folder}", folder=folder, **options)
    process.join(240)
    killed = "kill" in options
    assert process.exitcode == (-signal.SIGKILL if killed else 0)


def again(folder, processes):
    count = [f"trainer.devices={processes}", "trainer.oversubscribe=true"]
    process = start(f"resume={folder}", *count, folder=folder)
    process.join(240)
    assert process.exitcode == 0


def state(folder, stage="debias"):
    """Whole tables of the networks that a stage left."""
    return load_networks(folder / "checkpoints" / f"{stage}.pt")["estimator"]


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check(folder, reference):
    """The folder is that of the run on one process, up to rounding."""
    for name, value in state(reference).items():
        torch.testing.assert_close(state(folder)[name], value, rtol=0, atol=1e-5, msg=name)
    for ours, theirs in zip(rows(folder), rows(reference), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"train_seconds"}:
            # of parameters that differ by rounding; of columns that count rows, a row may differ
            assert ours[name] == theirs[name] or float(ours[name]) == pytest.approx(
                float(theirs[name]), abs=1e-4
            ), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(folder, *SHARDED)
    return folder


@pytest.mark.parametrize(
    ("before", "kill", "after"),
    [
        pytest.param(2, ("debias.pt", 2), 1, id="2 to 1"),
        pytest.param(1, ("debias.3-training-0of1.pt", 1), 2, id="1 to 2", marks=pytest.mark.slow),
        pytest.param(2, ("debias.2-networks-0of2.pt", 1), 3, id="2 to 3", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_with_another_number_of_processes(
    tmp_path, alone, before, kill, after
):
    folder = tmp_path / "run"
    run(folder, *SHARDED, processes=before, kill=kill)
    begun = load_checked(folder / "checkpoints" / "debias.pt")
    assert not begun["done"]
    assert begun["parts"]["of"] == before
    again(folder, after)
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    kinds = ("networks", "training")
    parts = {f"debias.3-done-{kind}-{k}of{after}.pt" for kind in kinds for k in range(after)}
    assert left == {"debias.pt"} | parts
    check(folder, alone)


@pytest.mark.slow
def test_every_stage_of_a_game_goes_on_with_another_number_of_processes(tmp_path):
    run(tmp_path / "alone", *UPO)
    folder = tmp_path / "run"
    run(folder, *UPO, processes=2, kill=("game.pt", 1))
    again(folder, 3)
    check(folder, tmp_path / "alone")


@pytest.mark.slow
def test_replicas_that_are_done_leave_the_stack_on_every_process(tmp_path):
    words = [
        *(word for word in SHARDED if not word.startswith(("seeds", "estimator.stages"))),
        *("seeds=5", "estimator.stages.debias.epochs=30", "estimator.stages.debias.patience=1"),
        *("estimator.learners.prediction.optimizer.lr=0.05", "protocol=paper"),
    ]
    for count in (1, 2):
        run(tmp_path / str(count), *words, processes=count)
    best = [row["best_epoch"] for row in rows(tmp_path / "1")]
    assert len(set(best)) > 1  # they stop at different times
    check(tmp_path / "2", tmp_path / "1")


def test_answers_are_those_of_whole_tables(tmp_path, alone):
    model = upo.load(alone)
    pairs = pd.DataFrame({"user": [0, 3, 39], "item": [29, 1, 0]})
    answers = model.predict(pairs)
    assert state(alone)["networks.prediction.user.weight"].shape == (80, 8)
    model.save(tmp_path / "saved")
    assert upo.load(tmp_path / "saved").predict(pairs).equals(answers)


@pytest.mark.parametrize("spoil", ["missing", "cut", "foreign", "declared", "path"])
def test_damaged_parts_end_in_a_sentence(tmp_path, alone, spoil):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    main = folder / "checkpoints" / "debias.pt"
    part = folder / "checkpoints" / "debias.3-done-networks-0of1.pt"
    content = load_checked(main)
    if spoil == "missing":
        part.unlink()
    elif spoil == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    elif spoil == "foreign":
        torch.save({"rows": [torch.zeros(3)] * 5}, part)
    elif spoil == "declared":
        for table in content["parts"]["tables"]:
            table[1] = 2**39
    else:
        content["parts"]["stamp"] = "../../3"
    torch.save(content, main)
    with pytest.raises(InputError, match=r"checkpoint"):
        upo.load(folder)


def test_a_run_does_not_go_on_with_other_tables(monkeypatch, tmp_path, alone):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    words = [f"resume={alone}", "trainer.tables=replicated"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert "trainer.tables was sharded when the run was started" in stop.value.__notes__[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.tables=spread"], "must be replicated or sharded, got 'spread'"),
        (["trainer.tables=sharded", "trainer.devices=auto"], "trainer.devices=auto does not say"),
        (["trainer.tables=sharded", "propensity.calibrate=isotonic"], "Calibration is fitted"),
        (["trainer.tables=sharded", "estimator=autodebias", "protocol=mar_holdout"], "LookAhead"),
    ],
)
def test_what_cannot_be_spread_is_refused_before_training(words, said):
    config = composed("ips", *words)
    with pytest.raises(InputError, match=said):
        Experiment(config, progress=False).run()


def test_a_model_in_python_needs_whole_tables():
    with pytest.raises(InputError, match=r"upo\.load"):
        composed_run("naive", {"trainer.tables": "sharded", "trainer.devices": 2})
    assert composed_run("naive", {"trainer.tables": "sharded"}).trainer.tables == "sharded"
