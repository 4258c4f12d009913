"""Finished runs are found at any depth; what differs between them becomes a column."""

import csv

import pandas as pd
import pytest
from small_reports import row, write_run

from upo.errors import InputError
from upo.report.gather import gather, read_rows, short_names, swept
from upo.report.summary import tables


def test_runs_multiruns_and_benchmarks_are_found_at_any_depth(tmp_path):
    write_run(tmp_path / "single", [row(seed=0)])
    write_run(tmp_path / "multirun" / "date" / "a,b=1", [row("b", seed=s) for s in (0, 1)])
    write_run(tmp_path / "bench" / "w-holdout" / "c", [row("c", seed=0)], hydra=False)
    killed = write_run(tmp_path / "killed", [row("d", seed=0)])
    (killed / "summary.json").unlink()  # written last
    frame = gather([tmp_path])
    assert sorted(frame["estimator"]) == ["a", "b", "b", "c"]
    assert set(frame["diagnostics"]) == {"correct"}
    assert set(gather([tmp_path / "single", tmp_path / "bench"])["estimator"]) == {"a", "c"}
    alone = gather([tmp_path / "multirun" / "date" / "a,b=1" / "results.csv"])
    pd.testing.assert_frame_equal(alone, frame[frame["estimator"] == "b"].reset_index(drop=True))


def test_settings_that_differ_within_an_estimator_become_columns(tmp_path):
    for beta in (0.1, 1.0):
        for p in (0.4, 0.6):
            config = {
                "dataset": {"name": "w", "p": p},
                "estimator": {"beta": beta, "copy": beta, "name": "a"},
                "seeds": 3 if p > 0.5 else 5,
                "logger": {"dir": f"{beta}"},
            }
            write_run(tmp_path / f"{beta}-{p}", [row(seed=s) for s in (0, 1)], config)
    write_run(tmp_path / "other", [row("b", seed=0)], {"estimator": {"beta": 7, "name": "b"}})
    frame = gather([tmp_path])
    assert swept(frame) == ["dataset.p", "estimator.beta"]  # not copy, seeds, logger or names
    counts = frame[frame["estimator"] == "a"].groupby(["dataset.p", "estimator.beta"]).size()
    assert counts.tolist() == [2, 2, 2, 2]


def test_a_simulated_worlds_p_is_named_even_where_it_is_the_same_in_all(tmp_path):
    for name in ("a", "b"):
        config = {"dataset": {"p": 0.4, "seed": 1}, "estimator": {"name": name}}
        write_run(tmp_path / name, [row(name, seed=0)], config)
    frame = gather([tmp_path])
    assert swept(frame) == ["dataset.p"]
    (summary,) = tables(frame)
    assert summary.keys == ["estimator", "dataset.p"]


def test_a_compared_estimator_belongs_to_its_runs_data(tmp_path):
    for p in (0.4, 0.6):
        config = {"dataset": {"p": p}, "estimator": {"beta": 1.0}}
        folder = write_run(tmp_path / str(p), [row("a", seed=0)], config)
        write_run(folder / "b", [row("b", seed=0)], None)
    frame = gather([tmp_path])
    assert sorted(frame.loc[frame["estimator"] == "b", "dataset.p"]) == [0.4, 0.6]


def test_of_two_results_for_one_seed_the_newer_stays(tmp_path):
    import os

    for name, auc, when in (("new", 0.9, 2000), ("old", 0.1, 1000)):
        folder = write_run(tmp_path / name, [row(seed=0, auc=auc)])
        os.utime(folder / "results.csv", (when, when))
    assert gather([tmp_path])["auc"].tolist() == [0.9]


def test_definitions_of_the_diagnostics_are_kept_apart_and_share_their_seconds(tmp_path):
    rows = [
        row(seed=s, diagnostics=d, train_seconds=8.0)
        for s in (0, 1)
        for d in ("correct", "table1_compat")
    ]
    write_run(tmp_path, rows)
    frame = gather([tmp_path])
    assert frame["diagnostics"].value_counts().to_dict() == {"correct": 2, "table1_compat": 2}
    assert set(frame["seconds_per_seed"]) == {4.0}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no rows"),
        ("dataset,estimator\nw,a\n", "lacks the columns protocol, seed"),
        ("{head}\n{row},1\n", "line 2"),
        ("{head}\n{row}\nw,a\n", "line 3"),
        ("{head}\n{bad}\n", "not a number"),
        (b"\xff\xfe\x00", "readable"),
    ],
)
def test_damaged_results_end_in_a_sentence(tmp_path, text, named):
    good = row(seed=0)
    if isinstance(text, str):
        lines = {
            "head": ",".join(good),
            "row": ",".join(map(str, good.values())),
            "bad": ",".join("high" if k == "auc" else str(v) for k, v in good.items()),
        }
        text = text.format(**lines).encode()
    path = tmp_path / "results.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=named) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_a_missing_value_is_nan(tmp_path):
    folder = write_run(tmp_path, [row(seed=0) | {"ece": "", "bmse": "nan"}])
    (found,) = read_rows(folder / "results.csv")
    assert found["ece"] != found["ece"]
    assert found["bmse"] != found["bmse"]
    with (folder / "results.csv").open(newline="") as file:
        assert set(next(csv.DictReader(file))) <= set(found)


@pytest.mark.parametrize(("what", "named"), [("absent", "does not exist"), ("", "No finished run")])
def test_nothing_to_report_is_said(tmp_path, what, named):
    with pytest.raises(InputError, match=named):
        gather([tmp_path / what])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="CSV"):
        gather([tmp_path / "notes.txt"])


def test_a_damaged_configuration_is_named(tmp_path):
    folder = write_run(tmp_path, [row(seed=0)])
    (folder / ".hydra" / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match="YAML"):
        gather([tmp_path])


def test_short_names_tell_keys_apart():
    keys = ["game.beta", "stages.game.epochs", "stages.debias.epochs"]
    assert list(short_names(keys).values()) == ["beta", "game.epochs", "debias.epochs"]
