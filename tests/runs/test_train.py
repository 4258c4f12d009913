"""The command line: a run folder as promised, and one sentence for whatever a person gets wrong."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from upo import cli

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator.stages.debias.epochs=2",
    "progress=false",
]
GAME = [
    "estimator.fit.epochs=1",
    "estimator.stages.propensity.steps=3",
    "estimator.stages.game.epochs=2",
    "estimator.stages.game.steps=3",
]


FILES = [("train", "log"), ("test", "test")]


def train(monkeypatch, folder, *overrides):
    """Run ``train.py`` in this process, as a person would from the repository root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides, f"hydra.run.dir={folder}"])
    cli.main()


def read(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of UPO-DR with three seeds."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        train(patch, folder, *SMALL, *GAME, "seeds=[0,3,7]")
    return folder


def test_a_worthless_run_says_so(monkeypatch, tmp_path, capsys):
    slow = ["estimator=ips", "estimator.learners.prediction.optimizer.lr=1e-9"]
    train(monkeypatch, tmp_path, *SMALL, *slow, "estimator.weighting.p_min=2.0", "seeds=[0,3]")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning: ")]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [f"Warning: {text}" for text in summary["warnings"]] == said
    assert len(said) == 2
    assert "The model of 2 of 2 seeds is no better than the constant prediction" in said[0]
    assert "of the log's rows have a propensity below the clip" in said[1]
    assert summary["useless_seeds"] == [0, 3]
    assert summary["metrics"]["clip_share"]["mean"] > 0.5


def test_the_run_folder_holds_what_is_promised(finished):
    rows = read(finished)
    assert [row["seed"] for row in rows] == ["0", "3", "7"]
    expected = "dataset estimator protocol seed auc ndcg@5 f1@5 precision@5 recall@5 log_loss mse"
    expected += " ece bmse dr_bias dr_variance parameters train_seconds"
    expected += " constant_log_loss constant_mse val_log_loss val_constant_log_loss val_gain_error"
    expected += " clip_share effective_sample_size"
    assert set(expected.split()) <= set(rows[0])
    summary = json.loads((finished / "summary.json").read_text())
    mean = sum(float(row["auc"]) for row in rows) / 3
    assert summary["metrics"]["auc"]["mean"] == pytest.approx(mean, abs=1e-12)
    assert OmegaConf.load(finished / ".hydra" / "config.yaml").estimator.name == "upo_dr"
    for stage in ("propensity", "game", "debias"):
        content = torch.load(finished / "checkpoints" / f"{stage}.pt", weights_only=True)
        assert content["done"]
    drawn = {path.name for path in (finished / "figures").glob("*.png")}
    assert drawn == {"reliability.png", "propensities.png", "curves.png", "worst_bins.png"}
    assert not list(finished.rglob(".*.pt.*"))  # no temporary file is left


def test_a_seed_that_diverges_is_marked_in_every_file(monkeypatch, tmp_path, capsys):
    rates = "estimator.learners.prediction.optimizer.lr=[.011,1e30,.014]"
    train(monkeypatch, tmp_path, *SMALL, "estimator=naive", "seeds=3", rates, "figures=false")
    rows = read(tmp_path)
    assert [row["auc"] == "nan" for row in rows] == [False, True, False]
    assert rows[1]["best_epoch"] == "-1"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed_seeds"] == [1]
    mean = (float(rows[0]["auc"]) + float(rows[2]["auc"])) / 2
    assert summary["metrics"]["auc"]["mean"] == pytest.approx(mean, abs=1e-12)
    said = capsys.readouterr().out
    assert "1 of 3 seeds failed, and nothing here is of them: 1" in said
    assert "Warning: 1 of 3 replicas failed" in said


def test_a_test_set_of_other_ids_is_said(monkeypatch, tmp_path, capsys):
    rows = [f"u{k % 7},i{k % 11},{k % 5 + 1}\n" for k in range(77)]
    head = "user,item,rating\n"
    (tmp_path / "log.csv").write_text(head + "".join(rows))
    (tmp_path / "test.csv").write_text(head + "".join(f"x{row}" for row in rows))
    files = [f"dataset.{name}={tmp_path / file}.csv" for name, file in FILES]
    words = ["dataset=table", *files, "estimator=naive", "figures=false", *SMALL[3:]]
    train(monkeypatch, tmp_path / "run", *words)
    warning = "100.0% of the test rows have a user or an item without a training row"
    assert f"Warning: {warning}" in capsys.readouterr().out
    said = json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]
    assert any(text.startswith(warning) for text in said)


def test_the_same_seeds_give_the_same_results(finished, monkeypatch, tmp_path):
    train(monkeypatch, tmp_path, *SMALL, *GAME, "seeds=[0,3,7]", "figures=false")

    again, before = read(tmp_path), read(finished)
    for row in (*again, *before):
        del row["train_seconds"]
    assert again == before


def test_a_seed_of_a_stack_equals_the_seed_alone(finished, monkeypatch, tmp_path):
    train(monkeypatch, tmp_path, *SMALL, *GAME, "seeds=[3]", "figures=false")
    alone = read(tmp_path)[0]
    stacked = read(finished)[1]
    for name in ("auc", "ndcg@5", "ece", "bmse", "dr_bias", "log_loss"):
        # float32 sums of other shapes; the parameters themselves agree to 1e-5
        assert float(alone[name]) == pytest.approx(float(stacked[name]), rel=1e-3, abs=1e-5)


def test_results_chosen_on_the_test_set_say_so(monkeypatch, tmp_path, capsys):
    train(monkeypatch, tmp_path, *SMALL, "estimator=naive", "protocol=paper", "figures=false")
    row = read(tmp_path)[0]
    assert row["protocol"] == "paper (test-selected)"
    assert "test-selected" in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["test_selected"] is True


def test_comparison_prints_both_side_by_side(monkeypatch, tmp_path, capsys):
    train(
        monkeypatch,
        tmp_path,
        *SMALL,
        "estimator=naive",
        "compare_with=dr",
        "figures=false",
        "seeds=2",
    )
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.split() == ["metric", "naive", "dr"])
    assert any(line.startswith("auc") for line in lines[lines.index(header) :])


WRONG = {
    "unknown dataset": (["dataset=nothing"], "nothing"),
    "unknown estimator": (["estimator=best"], "best"),
    "number for a name": (["dataset=5"], "dataset=5 is unknown; known are battery, "),
    "one unknown of several": (["-m", "estimator=ips,best"], "estimator=best is unknown"),
    "number for a part": (["objective=5"], "objective=5 is unknown; known are agreement, "),
    "unknown part": (["imputation=best"], "known are bias, calibrated"),
    "unknown variant of a study": (["+study/variant=best"], "known are cross_entropy"),
    "no folder to search": (["hydra.searchpath=[file:///nonexistent]"], "file:///nonexistent"),
    "parts that do not fit": (["imputation=none"], "choose a part that brings one"),
    "compile": (["compile=fast"], "compile must be auto, true or false, got 'fast'"),
    "unknown key": (["estimator.foo=1"], "foo"),
    "unknown top-level key": (["seed=1"], "seed"),
    "wrong type": (["progress=perhaps"], "perhaps"),
    "malformed override": (["coat"], "coat"),
    "missing files": (["dataset=coat", "paths.data_dir=/nonexistent"], "/nonexistent"),
    "negative beta": (["estimator.learners.game.penalties.upo.beta=-1"], "beta"),
    "negative clip": (["estimator.weighting.p_min=-1"], "p_min"),
    "negative learning rate": (["estimator.learners.prediction.optimizer.lr=-0.1"], "lr"),
    "negative weight decay": (
        ["estimator.learners.prediction.optimizer.weight_decay=-1"],
        "weight_decay",
    ),
    "no bins": (["estimator.bins.num_bins=0"], "num_bins"),
    "unknown bin rule": (["estimator.bins.rule=round"], "round"),
    "unknown form": (["estimator.learners.prediction.objective.dr_form=x"], "dr_form"),
    "no seeds": (["seeds=0"], "seeds"),
    "seeds of words": (["seeds=many"], "seeds"),
    "a seed twice": (["seeds=[1,1]"], "twice"),
    "no epochs": (["estimator.stages.debias.epochs=0"], "epochs"),
    "an empty dimension": (["estimator.networks.prediction.dim=0"], "dim"),
    "a list of another length": (
        ["estimator.learners.prediction.optimizer.lr=[0.1,0.2]", "seeds=3"],
        "2 values for 3 replicas",
    ),
    "a share of one": (["protocol.share=1"], "share"),
    "one class": (["dataset.label_threshold=9"], "label"),
    "no such device": (["trainer.accelerator=tpu"], "tpu"),
    "no such resume folder": (["resume=/nonexistent/run"], "/nonexistent/run"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_sentence(name, monkeypatch, tmp_path, capsys):
    overrides, fragment = WRONG[name]
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, tmp_path / "run", *SMALL[4:], *overrides)
    captured = capsys.readouterr()
    sentence = captured.err.strip().splitlines()[-1]
    assert stop.value.code == 1
    assert sentence.startswith("error: ")
    assert fragment in sentence
    assert "Traceback" not in captured.err
    assert not (tmp_path / "run" / "results.csv").exists()


def test_an_output_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, tmp_path / "file" / "run", *SMALL, "estimator=naive")
    assert stop.value.code == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_diverging_run_names_stage_step_and_replica(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(
            monkeypatch,
            tmp_path,
            *SMALL,
            "estimator=naive",
            "seeds=2",
            "estimator.networks.prediction.init_scale=1e30",
        )
    message = capsys.readouterr().err
    assert "stage 'debias'" in message
    assert "step 0" in message
    assert "replica 0" in message


def test_the_script_itself_has_no_traceback(tmp_path):
    """One real process, since the tests above call the entry point."""
    done = subprocess.run(
        [sys.executable, "train.py", "dataset=nothing", f"hydra.run.dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
