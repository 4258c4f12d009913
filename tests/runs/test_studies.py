"""Experiments of many runs: their rows compose, and a small study goes from command to figure."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import command
from small_estimators import built, roughened

import upo.runs.compose
from upo.data.battery import LOGS
from upo.models.metric_weights import bias_weight, expected_gap, variance_weight

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
VARIANTS, PUBLISHED, ABLATIONS, PARTS = (
    sorted(path.stem for path in (CONF / "study" / group).glob("*.yaml"))
    for group in ("variant", "published", "ablation", "part")
)


def composed(*overrides):
    return upo.runs.compose.composed(overrides)


def settings_of(config, name):
    """The estimator's settings, its stages checked against its learners."""
    estimator = OmegaConf.to_container(config.estimator, resolve=True)
    assert estimator["name"] == name
    for plan in filter(None, estimator["stages"].values()):
        assert {*plan.get("first", []), *plan["learners"]} <= set(estimator["learners"])
    return estimator


@pytest.mark.parametrize("row", VARIANTS)
def test_every_row_of_the_study_composes(row):
    config = composed("experiment=table1", f"study/variant={row}")
    settings = settings_of(config, row)
    assert settings["networks"]["prediction"]["dim"] == 8  # the study's own settings hold


@pytest.mark.parametrize("row", PUBLISHED)
def test_every_row_of_the_published_set_up_composes(row):
    config = composed("experiment=table1_published", f"study/published={row}")
    settings = settings_of(config, row)
    assert config.diagnostics == "table1_compat"
    assert config.dataset.all_cells
    assert config.dataset.protocol == "as_published"
    assert settings["learners"]["propensity"]["loss"]["_target_"].endswith("squared_error")
    assert settings["learners"]["prediction"]["objective"]["dr_form"] == "public"
    propensity, debias = settings["stages"]["propensity"], settings["stages"]["debias"]
    assert (propensity["epochs"], propensity["steps"]) == (25, None)  # whole passes over D
    assert propensity["pair_batch"] == 2 * debias["observed_batch"]
    drawn = debias["steps"] * debias["observed_batch"]
    assert drawn == pytest.approx(150 * 60_650, rel=0.01)  # as many epochs of p = .4 in all rows


def leaves(tree, path=()):
    """Path -> value of everything in nested settings but the estimator's name."""
    if not isinstance(tree, dict):
        return {path: str(tree)}
    parts = (leaves(value, (*path, key)) for key, value in tree.items() if path or key != "name")
    return {key: value for part in parts for key, value in part.items()}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_changes_one_thing_of_the_game(ablation):
    base = leaves(settings_of(composed("experiment=table1", "study/variant=upo_dr"), "upo_dr"))
    changed = leaves(
        settings_of(composed("experiment=ablations", f"study/ablation={ablation}"), ablation)
    )
    differing = {key for key in base | changed if base.get(key) != changed.get(key)}
    if ablation == "base":
        assert not differing
    else:
        assert 1 <= len(differing) <= 3  # a decay or a class comes with what goes with it


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_a_change_of_the_defaults(part):
    base = leaves(settings_of(composed("estimator=upo_dr"), "upo_dr"))
    changed = leaves(settings_of(composed("experiment=parts", f"study/part={part}"), part))
    assert (base == changed) == (part == "base")


def test_figure3_draws_both_datasets_with_the_settings_of_their_studies():
    studies = OmegaConf.load(CONF / "experiment" / "figure3.yaml").hydra.sweeper.params[
        "study/data"
    ]
    coat, films = (
        composed("experiment=figure3", f"study/data={name}") for name in studies.split(",")
    )
    assert (coat.dataset.name, films.dataset.name) == ("coat", "ml100k")
    before = ("backbone=mf_plain", "fit=fixed", "imputation=jl")
    assert coat.estimator == composed("dataset=coat", "estimator=upo_dr", *before).estimator
    assert films.estimator == composed("experiment=table1", "study/variant=upo_dr").estimator
    assert films.dataset == composed("experiment=table1", "dataset.p=0.5").dataset


def test_table1_names_every_row_and_figure1_only_rows_of_table1():
    table1, figure1 = (
        OmegaConf.load(CONF / "experiment" / f"{n}.yaml") for n in ("table1", "figure1")
    )
    rows = set(table1.hydra.sweeper.params["study/variant"].split(","))
    assert rows == set(VARIANTS)
    assert set(figure1.hydra.sweeper.params["study/variant"].split(",")) <= rows
    published = OmegaConf.load(CONF / "experiment" / "table1_published.yaml").hydra.sweeper.params
    assert published["study/published"].split(",") == PUBLISHED
    ablations = OmegaConf.load(CONF / "experiment" / "ablations.yaml").hydra.sweeper.params
    assert sorted(ablations["study/ablation"].split(",")) == ABLATIONS
    parts = OmegaConf.load(CONF / "experiment" / "parts.yaml").hydra.sweeper.params
    assert sorted(parts["study/part"].split(",")) == PARTS


def said(words):
    """What a command that ends well prints."""
    done = command(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def study(tmp_path, *overrides):
    """A small study on a completed synthetic log, as a person would start it."""
    words = ["train.py", "experiment=figure1", "dataset=semisynthetic"]
    words += ["dataset@dataset.base=synthetic", "dataset.base.n_users=40"]
    words += ["dataset.base.n_items=30", "dataset.base.density=0.3", "seeds=2", "progress=false"]
    words += [
        "dataset.completion.max_epochs=3",
        "study/variant=dr_jl,upo_dr",
        "dataset.p=0.4,0.6",
    ]
    words += [f"hydra.sweep.dir={tmp_path / 'runs'}", f"hydra.callbacks.report.out={tmp_path}"]
    words += [f"dataset.cache_dir={tmp_path / 'cache'}", "estimator.stages.debias.epochs=1"]
    words += ["estimator.fit.epochs=1", *overrides]
    return said(words)


@pytest.mark.slow
def test_a_study_of_ones_own_goes_from_command_to_figure(tmp_path):
    first = study(tmp_path)
    assert first.count("Results will land in") == 4
    tables = sorted(path.name for path in tmp_path.glob("*.csv"))
    assert len(tables) == 2, "one table for each definition of the diagnostics"
    for name in tables:
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {(row["estimator"], row["dataset.p"]) for row in rows} == {
            (row, p) for row in ("dr_jl", "upo_dr") for p in ("0.4", "0.6")
        }
    assert {path.stem for path in tmp_path.glob("figure1-*.png")} >= {
        "figure1-correct",
        "figure1-table1_compat",
    }
    again = study(tmp_path)
    assert again.count("which is kept") == 4
    assert "Results will land in" not in again


def test_the_battery_goes_from_command_to_table(tmp_path):
    words = ["train.py", "experiment=battery", "dataset.log=tiny"]
    words += ["estimator=naive,ips", "progress=false", "estimator.stages.debias.epochs=1"]
    words += [f"hydra.sweep.dir={tmp_path / 'runs'}", f"hydra.callbacks.report.out={tmp_path}"]
    printed = said(words)
    with (tmp_path / "battery.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["log"], row["estimator"], row["seeds"]) for row in rows} == {
        ("tiny", row, "2") for row in ("naive", "ips")
    }
    for row in rows:
        gain = 1 - float(row["val_log_loss"]) / float(row["val_constant_log_loss"])
        assert float(row["gain"]) == pytest.approx(100 * gain, abs=1e-9)
        if row["estimator"] == "naive":
            assert float(row["beside_naive"]) == float(row["auc_beside_naive"]) == 0
    text = (tmp_path / "battery.md").read_text()
    assert text.startswith("`python train.py experiment=battery`")
    assert text.count("| row | tiny |") == 4
    assert text in printed


def test_the_battery_names_every_log_once():
    params = OmegaConf.load(CONF / "experiment" / "battery.yaml").hydra.sweeper.params
    assert params["dataset.log"].split(",") == list(LOGS)


def test_weights_of_bias_and_variance_are_those_of_the_lemma():
    _, estimator, sampler = built("dr_jl")
    roughened(estimator, scale=0.3)
    pairs = sampler.chunk(0, 1)[0].pairs
    p_hat = estimator.propensity(pairs).detach()
    gap = expected_gap(estimator, pairs)
    inside = p_hat.clamp(min=0.01)
    assert (bias_weight(estimator, pairs, p_hat) == gap / inside).all()
    expected = 2 * (1 - inside) * gap**2 / inside**2
    assert (variance_weight(estimator, pairs, p_hat) == expected).all()
