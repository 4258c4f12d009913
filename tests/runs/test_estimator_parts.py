"""Estimators are lists of parts: each can be exchanged, and files of one's own may name them."""

import csv
import itertools
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf, open_dict
from test_configs import PARTS, finite, names, small

from upo import cli
from upo.benchmark import benchmark
from upo.errors import InputError
from upo.runs.compose import check_choices, choices, composed, conf_dir, user_dir
from upo.runs.config import check, scheduled
from upo.runs.experiment import Experiment
from upo.runs.fitting import StageFitting
from upo.tuning import tune

# the trainer's own, of a function that torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
CONF = Path(__file__).resolve().parents[2] / "conf"
OWN = """\
# @package _global_
defaults:
  - override /objective: snips
  - override /imputation: none
  - override /propensity: additive
estimator:
  name: my_ips
"""
SMALL = [
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator.fit.epochs=1",
    "estimator.stages.debias.epochs=1",
    "progress=false",
    "trainer.accelerator=cpu",
]


def own(folder, text=OWN, name="my_ips"):
    """A row of one's own in a folder; returns what puts it on the search path."""
    (folder / "estimator").mkdir(exist_ok=True)
    (folder / "estimator" / f"{name}.yaml").write_text(dedent(text))
    return f"hydra.searchpath=[file://{folder}]"


def estimator(*overrides):
    config = composed(["logger=none", *overrides])
    return OmegaConf.to_container(config.estimator, resolve=True)


def run(*overrides):
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = small(*overrides)
    result = Experiment(config, progress=False).run()
    finite(result)
    return result


# -- files -------------------------------------------------------------------------------------


def ancestors(path):
    """Files of the same folder that one builds on."""
    listed = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    named = [path.with_name(f"{x}.yaml") for x in listed if isinstance(x, str) and x != "_self_"]
    return [*named, *(above for name in named for above in ancestors(name))]


def test_no_part_and_no_row_has_more_than_one_ancestor():
    for path in itertools.chain(*((CONF / g).glob("*.yaml") for g in (*PARTS, "estimator"))):
        assert len(ancestors(path)) <= 1, path


def test_a_row_names_its_parts_and_little_else():
    for path in (CONF / "estimator").glob("*.yaml"):
        chosen = [key for x in yaml.safe_load(path.read_text())["defaults"] for key in x]
        parts = [f"override /{part}" for part in PARTS[1:]]
        assert chosen in (parts, [*parts, "override /protocol"]), path
        assert len(path.read_text().splitlines()) <= 14, path


def test_every_backbone_comes_with_a_second_network_of_its_make():
    again = {path.stem for path in (CONF / "backbone" / "again").glob("*.yaml")}
    assert again == set(names("backbone"))
    for backbone in again:
        networks = estimator("estimator=dr_jl", f"backbone={backbone}")["networks"]
        assert networks["imputation"] == networks["prediction"]


def test_no_file_says_what_the_builder_knows():
    for path in CONF.rglob("*.yaml"):
        assert "_partial_" not in path.read_text(), path


# -- exchanging parts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "parts", "same"),
    [
        ("dr_jl", ["imputation=mrdr"], "mrdr_jl"),
        ("dr_jl", ["propensity=upo", "imputation=ce"], "upo_dr"),
        ("dr_jl", ["propensity=kernel_adaptive"], "akbdr"),
        ("upo_dr", ["objective=ips", "imputation=none"], "upo_ips"),
        ("ips", ["objective=ips_joint", "propensity=balanced"], "ips_v2"),
        ("dr", ["imputation=calibrated_targeted", "propensity=calibrated"], "dce_tdr"),
    ],
)
def test_a_row_with_the_parts_of_another_is_the_other(row, parts, same):
    assert estimator(f"estimator={row}", *parts) | {"name": same} == estimator(f"estimator={same}")


PROPENSITIES = [n for n in names("propensity") if n != "none"]


OF_ROWS = {  # trained with them in every run of the suite
    yaml.safe_load(path.read_text())["defaults"][2]["override /propensity"]
    for path in (CONF / "estimator").glob("*.yaml")
}
TRAINED = [
    *(("upo_dr", n) for n in PROPENSITIES if n not in OF_ROWS),
    *(("upo_ips", n) for n in ("upo", "kernel", "constrained", "tilted")),
]


@pytest.mark.parametrize(
    ("row", "propensity"),
    [
        pytest.param(row, n, marks=() if (row, n) in TRAINED else pytest.mark.slow)
        for row in ("upo_dr", "upo_ips")
        for n in PROPENSITIES
    ],
)
def test_every_propensity_trains_under_both_objectives(row, propensity):
    if row == "upo_ips" and propensity in ("constrained", "tilted"):
        with pytest.raises(InputError, match="needs the network 'imputation'"):
            run(f"estimator={row}", f"propensity={propensity}")
    else:
        run(f"estimator={row}", f"propensity={propensity}")


@pytest.mark.parametrize("objective", [n for n in names("objective") if n != "autodebias"])
def test_an_objective_without_its_parts_is_refused_before_anything_trains(objective, monkeypatch):
    def fit(self, module, loggers=(), **_):
        trained.append(module.stage)
        return real(self, module, loggers, **_)

    real, trained = StageFitting.fit, []
    monkeypatch.setattr(StageFitting, "fit", fit)
    words = [f"objective={objective}", "propensity=additive", "imputation=none"]
    try:
        run("estimator=dr_jl", *words)
    except InputError:
        assert not trained
    else:
        assert trained[-1] == "debias"


@pytest.mark.parametrize("imputation", ["none", "ce", "mrdr", "constant"])
def test_every_imputation_trains_beside_snips(imputation):
    result = run("estimator=upo_dr", "objective=snips", f"imputation={imputation}")
    assert result.estimator.has_imputation == (imputation != "none")


@pytest.mark.parametrize("row", ["naive", "asips", "mr", "dce_tdr", "upo_dr"])
def test_rows_train_on_another_backbone(row):
    networks = run(f"estimator={row}", "backbone=ncf").estimator.networks
    assert type(networks["prediction"]).__name__ == "NeuralCollaborativeFiltering"


# -- the order of stages -----------------------------------------------------------------------


def test_stages_run_in_the_order_of_the_schedule_and_not_of_the_file():
    config = composed(["estimator=umvue_dr", "logger=none"])
    assert scheduled(config.estimator) == ["propensity", "refine", "representation", "debias"]
    config.estimator.schedule.first = ["representation", "propensity", "refine"]
    assert scheduled(config.estimator) == ["representation", "propensity", "refine", "debias"]
    config.estimator.stages.refine = None
    assert scheduled(config.estimator) == ["representation", "propensity", "debias"]
    with open_dict(config):
        del config.estimator.schedule  # a run of before there was one: the order of the keys
    keys = [name for name, plan in config.estimator.stages.items() if plan is not None]
    assert scheduled(config.estimator) == keys != ["representation", "propensity", "debias"]


@pytest.mark.parametrize("first", [["propensity"], ["propensity", "game", "twice"], ["game"] * 2])
def test_a_schedule_that_does_not_fit_its_stages_is_refused(first):
    config = composed(["estimator=upo_dr", "logger=none"])
    config.estimator.schedule.first = first
    with pytest.raises(InputError, match="name each stage once, in schedule"):
        check(config)


# -- rows of one's own -------------------------------------------------------------------------


def train(monkeypatch, *overrides):
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    cli.main()


def test_a_row_of_ones_own_runs_through_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPO_CONFIG_DIR", str(tmp_path / "mine"))
    search = own(tmp_path)
    words = ["estimator=my_ips", "figures=false", search, *SMALL]
    train(monkeypatch, *words, "compare_with=snips", f"hydra.run.dir={tmp_path / 'run'}")
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        assert [row["estimator"] for row in csv.DictReader(file)] == ["my_ips"]
    train(monkeypatch, f"resume={tmp_path / 'run'}", search)  # said again: it may run code
    assert benchmark(["estimators=my_ips", "out=tables", search, *SMALL[:3], *SMALL[4:]]) == 0
    assert "my_ips" in (tmp_path / "tables" / "synthetic-holdout.md").read_text()
    path = tune(["estimator=my_ips", search, *SMALL, "search=small", "trials=2", "batch=2"])
    assert path == tmp_path / "mine/tuned/holdout/synthetic/mf/my_ips.yaml"
    tuned = OmegaConf.load(path).estimator
    assert composed([search, "estimator=my_ips"]).estimator.weighting.p_min == tuned.weighting.p_min
    train(monkeypatch, *words, "--cfg", "job", "-p", "estimator.weighting.p_min")
    assert str(tuned.weighting.p_min) in capsys.readouterr().out  # train.py picks it up


def test_the_users_folder_comes_before_conf(tmp_path, monkeypatch):
    (tmp_path / "tuned" / "holdout" / "coat" / "mf").mkdir(parents=True)
    own(tmp_path)
    (tmp_path / "tuned" / "holdout" / "coat" / "mf" / "ips.yaml").write_text(
        "# @package _global_\nestimator:\n  weighting:\n    p_min: 0.123\n"
    )
    assert "my_ips" not in choices("estimator")
    monkeypatch.setenv("UPO_CONFIG_DIR", str(tmp_path))
    assert user_dir() == tmp_path
    assert "my_ips" in choices("estimator")
    assert estimator("dataset=coat", "estimator=ips")["weighting"]["p_min"] == 0.123
    assert estimator("estimator=my_ips")["name"] == "my_ips"


def test_a_configuration_is_composed_once_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("UPO_CONFIG_DIR", str(tmp_path))
    (tmp_path / "estimator").mkdir()
    file = tmp_path / "estimator" / "mine.yaml"
    for p_min in (0.1, 0.25):  # of another length: a file system may keep whole seconds
        file.write_text(OWN + f"  weighting: {{p_min: {p_min}}}\n")
        first = composed(["estimator=mine"])
        assert first.estimator.weighting.p_min == p_min
        first.estimator.weighting.p_min = 1.0  # each has its own
        assert composed(["estimator=mine"]).estimator.weighting.p_min == p_min
    file.unlink()
    with pytest.raises(MissingConfigException):
        composed(["estimator=mine"])


def test_another_hydra_application_does_not_see_the_users_folder(tmp_path, monkeypatch):
    from hydra import compose, initialize_config_dir

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "estimator").mkdir()
    (tmp_path / "theirs" / "app.yaml").write_text("defaults: [{optional estimator: my_ips}]\n")
    own(tmp_path)
    monkeypatch.setenv("UPO_CONFIG_DIR", str(tmp_path))
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.3"):
        assert compose("app") == {}
        assert estimator("estimator=my_ips")["name"] == "my_ips"  # and upo works within it
        assert compose("app") == {}


ROWS = {
    "from a row": "defaults:\n  - snips\n  - _self_\nname: own\nweighting:\n  p_min: 0.2\n",
    "from a row, another part": "# @package _global_\ndefaults:\n  - upo_dr\n"
    "  - override /objective: snips\n  - _self_\nestimator:\n  name: own\n"
    "  weighting:\n    p_min: 0.2\n",
    "of parts": OWN.replace("my_ips", "own") + "  weighting:\n    p_min: 0.2\n",
}


@pytest.mark.parametrize("text", ROWS.values(), ids=ROWS)
def test_a_row_may_start_from_another_or_from_parts(text, tmp_path):
    search = own(tmp_path, text, "own")
    settings = estimator("estimator=own", search)
    assert (settings["name"], settings["weighting"]["p_min"]) == ("own", 0.2)
    assert settings["learners"]["prediction"]["objective"]["_target_"].endswith("SelfNormalized")
    run("estimator=own", search)


def test_a_part_of_ones_own_is_a_file_beside(tmp_path):
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "mine.yaml").write_text(
        "# @package estimator\ndefaults: [snips, _self_]\nstages: {debias: {pair_batch: 7}}\n"
    )
    search = f"hydra.searchpath=[file://{tmp_path}]"
    settings = estimator("estimator=ips", "objective=mine", search)
    assert settings["stages"]["debias"]["pair_batch"] == 7
    assert settings["learners"] == estimator("estimator=snips")["learners"]


# -- names -------------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_those_that_are_known(tmp_path):
    search = own(tmp_path)
    check_choices(["estimator=my_ips", search, "seeds=3", "+experiment=main", "variant=null"])
    for words in (
        ["estimator=my_ips"],
        ["estimator=ips,my_ips"],
        ["compare_with=dr", "protocol=x"],
    ):
        with pytest.raises(InputError, match=r"\w+=\w+ is unknown; known are \w+, "):
            check_choices(words)
    with pytest.raises(InputError, match=r"known are .*my_ips"):
        check_choices(["estimator=theirs", search])
    with pytest.raises(InputError, match="names file:///nonexistent, which is no folder"):
        composed(["hydra.searchpath=[file:///nonexistent]"])


def test_an_unknown_part_within_a_file_is_named(tmp_path, monkeypatch, capsys):
    search = own(tmp_path, OWN.replace("additive", "addditive"))
    with pytest.raises(SystemExit):
        train(monkeypatch, "estimator=my_ips", search)
    known = ", ".join(names("propensity"))
    assert (
        capsys.readouterr().err == f"error: propensity=addditive is unknown; known are {known}.\n"
    )


def test_configurations_are_found_in_the_checkout_and_in_the_users_data(tmp_path, monkeypatch):
    assert conf_dir() == CONF
    assert choices("nothing") == []
    monkeypatch.delenv("UPO_CONFIG_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_dir() == tmp_path / "upo" / "conf"
