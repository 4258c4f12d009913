"""What every row, variant and study composes to is what it was before rows were made of parts."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import upo.runs.config  # noqa: F401 - registers the schema
from upo.runs.config import scheduled

ROOT = Path(__file__).resolve().parents[1]
BEFORE = json.loads((ROOT / "tests/configs/composed_before.json").read_text("utf-8"))
GROUPS = ("networks", "learners", "stages")


@pytest.fixture(scope="module", autouse=True)
def hydra_root():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def without_partial(node):
    """Settings less ``_partial_``, which the builder now adds itself."""
    if isinstance(node, dict):
        return {key: without_partial(value) for key, value in node.items() if key != "_partial_"}
    return [without_partial(value) for value in node] if isinstance(node, list) else node


def built(node, order):
    """What a run builds: stages in order, their players in order, and everything else as it is."""
    stages, players = [], set()
    for name in order:
        plan = dict(node["stages"][name])
        plan["players"] = [*plan.pop("first", []), *plan.pop("learners", [])]
        players.update(plan["players"])
        stages.append((name, plan))
    rest = {key: value for key, value in node.items() if key not in ("schedule", *GROUPS)}
    learners = {name: node["learners"][name] for name in players}
    return without_partial({**rest, "networks": node["networks"], "learners": learners}), stages


def before(command):
    """The node as it was stored, and its stages in the order of their keys, which then decided."""
    parts, node = BEFORE["parts"], BEFORE["nodes"][command]
    node = {
        key: {name: parts[n] for name, n in value.items()} if key in GROUPS else parts[value]
        for key, value in node.items()
    }
    return node, [name for name, plan in node["stages"].items() if plan is not None]


@pytest.mark.parametrize("command", BEFORE["nodes"])
def test_the_composed_estimator_is_what_it_was(command):
    estimator = compose("train", overrides=["logger=none", *command.split()]).estimator
    now = built(OmegaConf.to_container(estimator, resolve=True), scheduled(estimator))
    then = built(*before(command))
    assert now == then
