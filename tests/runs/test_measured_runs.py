"""What a run leaves of its measurement: columns at the end, its users, its groups, its budget."""

import csv
import json

import numpy as np
import pytest
from launched import NAIVE

from upo.errors import InputError
from upo.runs.by_user import read_users
from upo.runs.compose import composed
from upo.runs.folder import run
from upo.runs.results import BUDGET

WORLD = [word for word in NAIVE if not word.startswith("estimator=")]
IPS = [
    "estimator=ips",
    "estimator.stages.propensity.epochs=1",
    "estimator.stages.refine.epochs=1",
    "logger=none",
    "seeds=[2,5]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(composed([*WORLD, *IPS, "budget.trials=7"]), folder, chatty=False)
    return folder


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_stand_behind_the_others(folder):
    names = list(rows(folder)[0])
    after = names[names.index("train_seconds") + 1 :]
    held = ["held_ece", "held_bmse", "held_ece_floor", "held_bmse_floor"]
    assert after == [*held, "catalogue_recall@5", *BUDGET]
    for row in rows(folder):
        assert row["held_ece"] == row["ece"]  # a simulated world
        assert (row["trials"], row["epochs"]) == ("7", "5")
        assert 0 < float(row["clip"]) < 1
        assert 0 < float(row["catalogue_recall@5"]) < 1


def test_the_mean_over_test_users_is_the_column(folder):
    found = read_users(folder)
    assert found is not None
    assert found.seeds.tolist() == [2, 5]
    for name, values in found.values.items():
        expected = [float(row[name]) for row in rows(folder)]
        assert values.mean(axis=1) == pytest.approx(expected, rel=1e-6)
        assert values.shape == (2, len(found.users))


def test_the_summary_has_groups_and_expected_figures(folder):
    summary = json.loads((folder / "summary.json").read_text())
    mean = summary["metrics"]["auc"]["mean"]
    assert summary["expected"]["auc"]["mean"] == pytest.approx(mean)
    assert summary["expected"]["auc"]["error_over_users"] > 0
    with (folder / "test_groups.csv").open(newline="") as file:
        groups = list(csv.DictReader(file))
    assert {row["of"] for row in groups} == {"users", "items"}
    assert len(groups) == 2 * len(summary["groups"])
    first = summary["groups"][0]
    assert first["metrics"]["log_loss"]["mean"] == pytest.approx(
        np.mean([float(row["log_loss"]) for row in groups[:2]])
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_file_of_users_ends_in_a_sentence(tmp_path, content):
    assert read_users(tmp_path) is None
    (tmp_path / "test_users.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"test_users.npz is damaged .* leave it out"):
        read_users(tmp_path)
