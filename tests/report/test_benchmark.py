"""Many rows in one command: it resumes, survives a failing row, and writes what it measured."""

import csv
import multiprocessing

import processes  # noqa: F401 - those that are started here have made their imports
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from upo import benchmark as module
from upo.errors import InputError
from upo.report.table import markdown, published
from upo.runs import rows
from upo.tuning import tune

SMALL = [
    "dataset=synthetic",
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "seeds=2",
    "estimator.stages.debias.epochs=2",
]


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Benchmarks run in a folder of their own; the runs are counted."""
    monkeypatch.chdir(tmp_path)
    ran = []
    real = rows.run

    def run(config, folder, **options):
        ran.append(str(config.estimator.name))
        return real(config, folder, **options)

    monkeypatch.setattr(rows, "run", run)
    return ran


def test_a_second_call_repeats_nothing(counted, tmp_path, capsys):
    arguments = [*SMALL, "estimators=naive,ips"]
    assert module.benchmark(arguments) == 0
    first = (tmp_path / "outputs" / "tables" / "synthetic-holdout.csv").read_text()
    assert module.benchmark(arguments) == 0
    assert counted == ["naive", "ips"]
    assert (tmp_path / "outputs" / "tables" / "synthetic-holdout.csv").read_text() == first
    assert module.benchmark([*arguments, "seeds=3"]) == 0
    assert counted == ["naive", "ips"] * 2  # another configuration is another run
    assert "python -m upo.benchmark dataset=synthetic" in capsys.readouterr().out


def test_a_failing_row_is_reported_and_the_others_go_on(counted, tmp_path, monkeypatch):
    real = rows.run

    def run(config, folder, **options):
        if config.estimator.name == "ips":
            raise RuntimeError("planted")
        return real(config, folder, **options)

    monkeypatch.setattr(rows, "run", run)
    assert module.benchmark([*SMALL, "estimators=[ips,naive]"]) == 1
    table = (tmp_path / "outputs" / "tables" / "synthetic-holdout.md").read_text()
    assert "ips: RuntimeError: planted" in table
    with (tmp_path / "outputs" / "tables" / "synthetic-holdout.csv").open(newline="") as file:
        assert {row["estimator"] for row in csv.DictReader(file)} == {"naive"}


def test_every_row_is_searched_with_the_same_budget(counted, tmp_path, capsys):
    words = [*SMALL, "estimators=naive,ips", "tune=small", "trials=3", "batch=2"]
    assert module.benchmark(words) == 0
    assert counted == ["naive", "ips"]
    said = capsys.readouterr()
    assert "ips: search" in said.out + said.err
    assert "2 of 2 rows, about 0 min left" in said.out + said.err
    folder = tmp_path / "outputs" / "benchmark" / "synthetic-holdout-tuned3x1"
    trials = folder / "ips" / "study.csv"
    assert len(trials.read_text().splitlines()) == 4
    table = tmp_path / "outputs" / "tables" / "synthetic-holdout-tuned3x1.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["estimator"], row["trials"], row["trial_seeds"]) for row in rows} == {
        ("naive", "3", "1"),
        ("ips", "3", "1"),
    }
    tuned = OmegaConf.load(folder / "ips" / "tuned.yaml")
    used = OmegaConf.load(folder / "ips" / "config.yaml")
    assert used.estimator.weighting.p_min == tuned.estimator.weighting.p_min
    assert module.benchmark(words) == 0
    assert counted == ["naive", "ips"]  # neither searched nor run again


@pytest.mark.parametrize("word", ["trials=3", "batch=2"])
def test_a_budget_without_a_search_is_refused(word):
    with pytest.raises(InputError, match="say which, as in tune=small"):
        module.split_arguments([*SMALL, word])
    with pytest.raises(InputError, match="search=best is unknown"):
        module.split_arguments([*SMALL, "tune=best"])


def test_benchmarks_of_other_backbones_and_budgets_lie_apart():
    names = []
    settings = "", "backbone=mf_plain", "propensity.withhold=0.1", "tune=small trials=4"
    for words in map(str.split, settings):
        wanted = module.split_arguments([*SMALL, *words])
        names.append(module._name(module.compose_run("naive", wanted.words), wanted))
    assert names == [
        "synthetic-holdout",
        "synthetic-holdout-mf_plain",
        "synthetic-holdout-withhold0.1",
        "synthetic-holdout-tuned4x1",
    ]


@pytest.mark.parametrize("named", ["estimators=best", "estimators="])
def test_unknown_rows_are_refused(named):
    with pytest.raises(InputError, match="estimators="):
        module.split_arguments([named])


def test_runs_without_a_test_set_are_compared_on_held_out_rows():
    row = {"seed": 0, "val_log_loss": 0.25, "ece": 0.5, "parameters": 7, "train_seconds": 1.0}
    text = markdown({"ips": [row]}, command="", dataset="table", protocol="holdout", failed={})
    header, _, values = text.splitlines()[-3:]
    assert header.startswith("| estimator | val_log_loss | 95 % | paper | ece | parameters |")
    assert "0.2500" in values
    assert "| 0.5 |" in values


def test_published_figures_are_those_of_the_paper():
    assert published("coat")["upo_dr"]["auc"] == (0.749, 0.003)
    assert published("yahoo")["naive"]["f1"] == (0.306, 0.002)
    assert set(published("coat")) == set(published("yahoo"))
    assert published("synthetic") == {}


def test_the_tuner_writes_what_a_run_picks_up(tmp_path, capsys):
    overrides = [*SMALL[:4], "estimator=ips", "estimator.fit.epochs=1"]
    path = tune([*overrides, SMALL[5], "trials=4", "batch=2", f"out={tmp_path}"])
    assert path == tmp_path / "holdout" / "synthetic" / "mf" / "ips.yaml"
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        tuned = compose("holdout/synthetic/mf/ips").estimator
    assert 0.01 <= tuned.weighting.p_min <= 3.0
    assert tuned.networks.prediction.dim in (32, 64, 128, 256)
    assert "imputation" not in tuned.learners  # ips has none
    assert "Best of 4 trials" in capsys.readouterr().out


def test_a_table_without_a_test_set(counted, tmp_path, capsys):
    rows = [f"u{k % 7},i{k % 11},{k % 5 + 1}\n" for k in range(77)]
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "".join(rows))
    words = ["dataset=table", "dataset.train=log.csv", "estimators=naive", SMALL[-1]]
    assert module.benchmark(words) == 0
    head, cells = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("| estimator", "| naive"))
    )
    found = dict(zip(head, cells, strict=True))
    assert 0 < float(found["val_log_loss"].split()[0]) < 2
    assert not any(name.startswith(("auc", "ndcg")) for name in found)


def results(path):
    """Rows of a table without what the clock says."""
    with path.open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "train_seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_rows_at_once_give_the_table_of_one_after_another(monkeypatch, tmp_path, capsys):
    tables = []
    words = [*SMALL, "estimators=[naive,ips,snips]", "estimator.weighting.p_min=0.2"]
    words.append("estimator.fit.epochs=1")
    for jobs in (1, 2):
        (tmp_path / str(jobs)).mkdir()
        monkeypatch.chdir(tmp_path / str(jobs))
        assert module.benchmark([*words, f"jobs={jobs}"]) == 1  # naive has no weighting
        tables.append(results(tmp_path / str(jobs) / "outputs/tables/synthetic-holdout.csv"))
    assert tables[0] == tables[1]
    assert [row["estimator"] for row in tables[1]] == ["ips", "ips", "snips", "snips"]
    assert "naive failed" in capsys.readouterr().out
    assert not multiprocessing.active_children()
    assert (tmp_path / "2/outputs/benchmark/synthetic-holdout/ips/train.log").exists()


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_jobs_that_are_no_count_are_refused(jobs):
    with pytest.raises(InputError, match="jobs must be a whole number"):
        module.split_arguments(["estimators=ips", f"jobs={jobs}"])
