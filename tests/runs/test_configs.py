"""Every configuration file: it composes, trains, stacks, and comes back from its checkpoint.

The files are found by globbing, so a new one is tested without a new test.
"""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
import rows
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

import upo
import upo.runs.config
from upo.metrics.names import lower_is_better
from upo.runs.assembly import build_estimator
from upo.runs.compose import composed
from upo.runs.experiment import Experiment
from upo.training.checkpoint import load_checked

# the trainer's own, of a function that torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
CONF = Path(__file__).resolve().parents[2] / "conf"
WORLD = [
    "backbone=mf_plain",
    "fit=fixed",
    "dataset=synthetic",
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "dataset.test_per_user=8",
    "trainer.accelerator=cpu",
    "logger=none",
]
SEEDS = [3, 8]
PARTS = ["backbone", "objective", "imputation", "propensity"]


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def hydra_root():
    """One search path for the whole module."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def resolved(*overrides):
    """A composed configuration with every interpolation followed."""
    return OmegaConf.to_container(composed(["logger=none", *overrides]), resolve=True)


def small(*overrides, seeds=SEEDS):
    """A run on a tiny world: every stage one epoch of two steps."""
    config = composed([*WORLD, *overrides])
    config.seeds = list(seeds)
    with open_dict(config):
        for plan in config.estimator.stages.values():
            if plan is None:
                continue
            plan.update(epochs=1, steps=2, patience=0)
            for batch in ("observed_batch", "pair_batch"):
                if plan.get(batch):
                    plan[batch] = min(plan[batch], 64)
    return config


def finite(result):
    assert {"auc", "ndcg@5", "log_loss"} <= set(result.metrics)
    for name, value in result.metrics.items():
        assert torch.isfinite(value).all(), name
    for stage in result.stages:
        for name, values in stage.history.logs.items():
            assert torch.isfinite(torch.stack(values)).all(), name


def predictions(estimator):
    """Scores, and where there are any propensities, of all pairs and replicas."""
    space = estimator.space
    pairs = space.pairs(torch.arange(space.n_pairs).expand(space.replicas, -1), space.n_pairs)
    with torch.no_grad():
        values = {"prediction": estimator.logit("prediction", pairs)}
        if estimator.has_propensity:
            values["p_hat"] = estimator.p_hat(pairs)
        if estimator.has_imputation:
            values["imputed"] = estimator.imputed(pairs)
    return values


# -- composing ---------------------------------------------------------------------------------


def with_dataset(estimator, dataset):
    files = ["dataset.train=log.csv"] if dataset == "table" else []
    config = resolved(f"dataset={dataset}", f"estimator={estimator}", *files)
    assert config["estimator"]["name"] == estimator
    assert config["dataset"]["name"].startswith(dataset)
    return config["estimator"]


@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_dataset_composes(dataset):
    with_dataset("naive", dataset)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", names("dataset"))
def test_every_estimator_composes_with_every_dataset(dataset):
    for estimator in names("estimator"):
        with_dataset(estimator, dataset)


@pytest.mark.parametrize("propensity", names("propensity"))
def test_every_propensity_composes_and_its_stages_name_learners(propensity):
    estimator = resolved("estimator=dr_jl", f"propensity={propensity}")["estimator"]
    for plan in filter(None, estimator["stages"].values()):
        assert {*plan.get("first", []), *plan["learners"]} <= set(estimator["learners"])
    if propensity != "none":
        assert "propensity" in estimator["networks"]
        assert estimator["weighting"] is not None


@pytest.mark.parametrize("group", ["experiment", "protocol", "trainer"])
def test_every_choice_composes(group):
    for name in names(group):
        assert resolved(f"{group}={name}")


@pytest.mark.parametrize("name", names("logger"))
def test_every_logger_composes(name):
    logger = compose("train", overrides=[f"logger={name}"]).logger
    assert (logger is None) == (name == "none")


@pytest.mark.parametrize("name", names("search"))
def test_every_search_composes_and_has_a_budget(name):
    search = compose(f"search/{name}").search
    assert min(search.trials, search.batch, search.seeds) >= 1
    assert search.trials >= 4 * search.batch  # rounds, of which the first is random
    for key in search.limits:
        assert key in search.space
    for low, high, kind in search.space.values():
        assert low < high
        assert kind in ("log", "log0", "linear")


def test_tuned_values_are_overrides_of_their_own_estimator():
    for path in CONF.glob("tuned/**/*.yaml"):
        assert path.stem in names("estimator"), path
        assert path.read_text().startswith("# @package _global_"), path
        assert path.parent.name in names("backbone"), path
        assert path.parent.parent.name in names("dataset"), path


def single(name):
    """Whether an experiment is one run; those of many runs are tested in test_studies.py."""
    return "hydra:" not in (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [n for n in names("experiment") if single(n)])
def test_every_experiment_trains(name):
    finite(Experiment(small(f"experiment={name}"), progress=False).run())


# -- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(request, tmp_path_factory):
    """Configuration, result and folder of a finished run of two seeds."""
    folder = tmp_path_factory.mktemp(request.param)
    config = small(f"estimator={request.param}")
    return config, Experiment(config, folder, progress=False).run(), folder


@pytest.mark.parametrize("trained", rows.each(), indirect=True)
def test_every_estimator_trains(trained):
    config, result, _ = trained
    finite(result)
    expected = upo.runs.config.scheduled(config.estimator)
    assert [stage.name for stage in result.stages] == expected
    assert result.estimator.has_propensity == ("ece" in result.metrics)


@pytest.mark.parametrize("trained", rows.each(), indirect=True)
def test_a_stack_of_two_seeds_equals_each_seed_alone(trained):
    config, stack, _ = trained
    together = predictions(stack.estimator)
    for r, seed in enumerate(SEEDS):
        config.seeds = [seed]
        alone = Experiment(config, progress=False).run()
        for name, value in predictions(alone.estimator).items():
            # float32 sums of other shapes, over two steps of each stage
            torch.testing.assert_close(together[name][r], value[0], rtol=1e-4, atol=1e-5)
        for name, value in alone.metrics.items():
            torch.testing.assert_close(stack.metrics[name][r], value[0], rtol=1e-3, atol=1e-6)
    config.seeds = SEEDS


@pytest.mark.parametrize("trained", rows.each(), indirect=True)
def test_the_checkpoint_gives_the_same_predictions_in_a_fresh_estimator(trained):
    config, result, folder = trained
    content = load_checked(folder / "checkpoints" / f"{result.stages[-1].name}.pt")
    assert content["done"]
    assert content["seeds"] == SEEDS
    fresh = build_estimator(config.estimator, result.estimator.space)
    before = predictions(fresh)["prediction"]
    fresh.load_state_dict(content["estimator"])
    for role in fresh.networks:
        fresh.stepped(str(role))
    after = predictions(fresh)
    for name, value in predictions(result.estimator).items():
        assert torch.equal(after[name], value), name
    assert not torch.equal(after["prediction"], before)


# -- extending ---------------------------------------------------------------------------------


def test_no_code_decides_by_an_estimators_name():
    # a result column may share its name with an estimator: dr_bias
    forbidden = {name for name in names("estimator") if not lower_is_better(name)}
    found = [
        f"{path.name}:{node.lineno} {node.value!r}"
        for path in sorted(Path(upo.__file__).parent.rglob("*.py"))
        if path.name != "leaderboard.py"  # there the others are compared with one row by name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in forbidden
    ]
    assert not found, f"configuration decides, not the code: {found}"


# -- documentation -----------------------------------------------------------------------------


def commented(text):
    """Top-level keys, and dotted keys one level below, that have a comment beside or above."""
    found, parent, above = set(), "", False
    for line in text.splitlines():
        match = re.match(r"( *)([a-z_]+):", line)
        if match:
            indent, key = match.groups()
            parent = key if not indent else parent
            if above or " #" in line:
                found.add(f"{parent}.{key}" if indent else key)
        above = line.lstrip().startswith("#")
    return found


def test_every_key_of_a_run_is_documented():
    text = (CONF / "train.yaml").read_text(encoding="utf-8")
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    keys = {field.name for field in fields(upo.runs.config.Train)} - groups - {"paths"}
    assert keys <= set(yaml.safe_load(text)), "the schema has keys that conf/train.yaml hides"
    keys |= {f"paths.{field.name}" for field in fields(upo.runs.config.Paths)}
    assert not keys - commented(text), "conf/train.yaml leaves keys without a comment"


@pytest.mark.parametrize("group", [*PARTS, "dataset", "estimator", "protocol", "experiment"])
def test_every_file_begins_by_saying_what_it_is(group):
    for path in (CONF / group).glob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if "@package" not in line]
        assert re.match(r"# \S", lines[0]), path
