"""What the files of all rows are made of, and what the table of docs/methods.md says of them."""

import re

import pytest
import rows
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.compose import conf_dir

METHODS = (rows.CONF.parent / "docs" / "methods.md").read_text(encoding="utf-8")
SCHEDULES = ("prediction only", "frozen", "frozen, twins, third", "joint")


@pytest.fixture(scope="module")
def composed():
    """Row -> its configuration, composed once."""
    # nobody tunes for the dataset `table`, so these are the values of the row's own file
    given = ["dataset=table", "dataset.train=none", "logger=none"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return {
            row: compose("train", [f"estimator={row}", *given], return_hydra_config=True)
            for row in rows.NAMES
        }


def parts_of(node):
    """Learners and networks that a configuration names."""
    if isinstance(node, dict):
        target = str(node.get("_target_"))
        found = {target} if target.startswith(("upo.learners.", "upo.models.")) else set()
        return found.union(*map(parts_of, node.values()))
    return set().union(*map(parts_of, node)) if isinstance(node, list) else set()


def test_the_kinds_have_every_part(composed):
    parts = {}
    for row, config in composed.items():
        assert config.estimator.name == row
        parts[row] = parts_of(OmegaConf.to_container(config.estimator, resolve=True))
    assert set().union(*parts.values()) == set().union(*(parts[row] for row in rows.KINDS))


def objective_of(config):
    """The objective that trains the prediction, or that of the predictors it is distilled from."""
    learners = config.estimator.learners
    node = learners.get("prediction", {}).get("objective") or learners.first.objective
    return node._target_.rpartition(".")[2]


def test_the_rows_that_claim_unbiasedness_are_those_of_ips_and_dr(composed):
    unbiased = {"InversePropensity", "DoublyRobust"}
    found = {row for row, config in composed.items() if objective_of(config) in unbiased}
    assert found == rows.CLAIM_UNBIASED


def stated():
    """Row -> cells of its line in docs/methods.md."""
    lines = re.findall(r"^\| \[(\w+)\]\(\.\./conf/estimator/\1\.yaml\) \|(.*)\|$", METHODS, re.M)
    return {row: [cell.strip() for cell in cells.split("|")] for row, cells in lines}


def test_parameters_propensities_and_schedules_are_those_of_the_files(composed):
    log = torch.arange(100), torch.ones(100)
    space = PairSpace(*log, n_users=290, n_items=300, seeds=[0], holdout=0.0)  # Coat's size
    found = {
        row: (
            f"{build_estimator(config.estimator, space).parameters_per_replica:,}",
            config.hydra.runtime.choices["propensity"],
        )
        for row, config in composed.items()
    }
    lines = stated()
    assert {row: (cells[5], cells[2]) for row, cells in lines.items()} == found
    assert {cells[4] for cells in lines.values()} == set(SCHEDULES)
