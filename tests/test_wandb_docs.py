"""docs/wandb.md names keys that a run logs, and the sweep starts runs that compose."""

import csv
import re
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from upo import cli

ROOT = Path(__file__).resolve().parent.parent
SWEEP = (ROOT / "docs" / "wandb_sweep.yaml").read_text(encoding="utf-8")
DOC = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
SMALL = [
    "dataset=synthetic",
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "propensity=upo_auto",  # it logs all that UPO does, and beta
    "estimator.fit.epochs=1",
    "estimator.stages.game.epochs=2",
    "estimator.stages.game.pair_batch=100",
    "estimator.stages.debias.epochs=1",
    "logger=csv",
    "progress=false",
]


def test_the_sweep_is_one_that_wandb_accepts():
    sweep = yaml.safe_load(SWEEP)
    # keys and values of the schema that the service checks a sweep against
    assert set(sweep) <= {
        "program",
        "project",
        "name",
        "method",
        "metric",
        "run_cap",
        "parameters",
        "command",
    }
    assert sweep["method"] in ("bayes", "grid", "random")
    assert sweep["metric"]["goal"] in ("minimize", "maximize")
    assert (ROOT / sweep["program"]).is_file()
    for name, parameter in sweep["parameters"].items():
        if "values" not in parameter:
            assert parameter["distribution"] in ("uniform", "log_uniform_values"), name
            assert 0 < parameter["min"] < parameter["max"], name


def trials(sweep):
    """The low and the high ends of all parameters, as an agent receives them."""
    ends = {
        name: parameter.get("values", [parameter.get("min"), parameter.get("max")])
        for name, parameter in sweep["parameters"].items()
    }
    for end in (0, -1):
        yield {"args": {name: {"value": values[end]} for name, values in ends.items()}}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")  # of the logger's own dependencies
def test_a_trial_of_the_sweep_composes_to_the_values_it_was_given(monkeypatch):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = yaml.safe_load(SWEEP)
    head = ["${env}", "${interpreter}", "${program}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for trial in trials(sweep):
            command = create_sweep_command(list(sweep["command"]))
            assert command[:3] == head
            assert command[-1] == "${args_no_hyphens}"
            given = create_sweep_command_args(trial)["args_no_hyphens"]
            overrides = [o for o in command[3:-1] if not o.startswith("hydra.")] + given
            config = compose("train", overrides=overrides)
            for key, value in trial["args"].items():
                assert OmegaConf.select(config, key) == value["value"], key
    (folder,) = (o for o in sweep["command"] if o.startswith("hydra.run.dir="))
    node = OmegaConf.create({"dir": folder.partition("=")[2]})
    assert node.dir == "outputs/wandb/abc123"


def test_the_documented_keys_are_logged(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, f"hydra.run.dir={tmp_path}"])
    cli.main()
    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = {name for row in rows for name, value in row.items() if value}
    logged |= {f"figures/{path.stem}" for path in (tmp_path / "figures").glob("*.png")}
    table = DOC.partition("## What is logged")[2].partition("## Dashboard")[0]
    stage = re.compile(r"`((?:propensity|game|debias|final|figures)/[^`]+)`")
    documented = set(stage.findall(table))
    assert len(documented) > 15
    assert documented <= logged
    panels = set(stage.findall(DOC.partition("## Dashboard")[2]))
    assert panels <= logged
    assert yaml.safe_load(SWEEP)["metric"]["name"] in logged
