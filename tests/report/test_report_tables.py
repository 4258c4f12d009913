"""Tables and figures of known results, and the command that writes them."""

import csv
import math

import numpy as np
import pytest
from PIL import Image
from small_reports import row, write_run

from upo.errors import InputError
from upo.report.__main__ import main as report
from upo.report.figures import figure1, figure2, figure3, overview
from upo.report.gather import gather
from upo.report.render import latex_text, markdown_text
from upo.report.summary import tables

SEEDS = range(4)


def runs(tmp_path, key, values, estimators=("a", "b"), **fixed):
    """A sweep: each estimator at each value of the dotted key, metrics growing with the value."""
    for n, value in enumerate(values):
        for k, name in enumerate(estimators):
            group, _, rest = key.partition(".")
            config = {group: {rest: value}}
            rows = [
                row(name, seed=s, **fixed) | {"ece": 0.01 * (n + 1) * (k + 1) + 1e-4 * s}
                for s in SEEDS
            ]
            write_run(tmp_path / f"{name}-{value}", rows, config)
    return gather([tmp_path])


def test_means_spreads_intervals_and_the_best(tmp_path):
    rows = [row("a", seed=s) for s in SEEDS] + [row("b", seed=s, auc=0.5, ece=0.001) for s in SEEDS]
    write_run(tmp_path, rows)
    (summary,) = tables(gather([tmp_path]))
    a, b = summary.frame.to_dict("records")
    values = np.array([0.7, 0.71, 0.72, 0.73])
    assert a["auc"] == pytest.approx(values.mean())
    assert a["auc_sd"] == pytest.approx(values.std(ddof=1))
    half = 3.1824 * values.std(ddof=1) / 2  # t quantile of 3 degrees of freedom
    assert a["auc_high"] - a["auc"] == pytest.approx(half, rel=1e-4)
    assert (a["auc_best"], b["auc_best"]) == (True, False)
    assert (a["ece_best"], b["ece_best"]) == (False, True)  # lower is better
    assert a["seeds"] == 4
    assert a["seconds_per_seed"] == pytest.approx(0.5)
    text = markdown_text([summary])
    assert "**0.7150** ± 0.0129 [0.6945, 0.7355]" in text
    assert "| 0.5000 ± 0.0000" in text
    latex = latex_text(summary)
    assert r"\textbf{0.7150} $\pm$ 0.0129" in latex
    assert r"dr\_variance" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3


def test_protocols_and_definitions_never_share_a_table(tmp_path):
    write_run(tmp_path / "1", [row(seed=0, diagnostics="correct")])
    write_run(tmp_path / "2", [row(seed=0, diagnostics="table1_compat")])
    write_run(tmp_path / "3", [row(seed=0, protocol="paper (test-selected)")])
    write_run(tmp_path / "4", [row(seed=0, dataset="v")])
    summaries = tables(gather([tmp_path]))
    assert [len(s.frame) for s in summaries] == [1, 1, 1, 1]
    assert len({s.name for s in summaries}) == 4
    assert any("test-selected" in s.title for s in summaries)
    assert any("table1_compat" in s.title for s in summaries)
    with pytest.raises(InputError, match="one dataset, protocol"):
        overview(gather([tmp_path]), tmp_path / "x", ["auc"])


def test_published_figures_stand_beside(tmp_path):
    write_run(tmp_path / "coat", [row("upo_dr", seed=0, dataset="coat")])
    for p in (0.4, 0.5):
        rows = [
            row("dr_jl", seed=0, dataset="ml100k", diagnostics=d)
            for d in ("correct", "table1_compat")
        ]
        write_run(tmp_path / str(p), rows, {"dataset": {"p": p}})
    found = {s.name: s.frame for s in tables(gather([tmp_path]))}
    coat = found["coat-holdout"].iloc[0]
    assert (coat["auc_paper"], coat["parameters_paper"]) == (0.749, 113000)
    assert "ece_paper" not in found["ml100k-holdout"]  # another definition than Table 1's
    compat = found["ml100k-holdout-table1_compat"].set_index("dataset.p")
    assert compat.loc[0.4, "ece_paper"] == 0.249
    assert compat.loc[0.4, "dr_variance_paper"] == 4.6684e-4
    assert math.isnan(compat.loc[0.5, "ece_paper"])  # not printed
    assert "*0.749*" in markdown_text(tables(gather([tmp_path / "coat"])))


def test_the_best_is_that_of_each_world(tmp_path):
    (summary,) = tables(runs(tmp_path, "dataset.p", [0.4, 0.6]))
    best = summary.frame[summary.frame["ece_best"]]
    assert best["estimator"].tolist() == ["a", "a"]
    assert sorted(best["dataset.p"]) == [0.4, 0.6]


def drawn(paths):
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert np.asarray(picture.convert("L")).std() > 5  # not blank
            assert path.stat().st_size < 100_000
        else:
            assert path.read_bytes().startswith(b"%PDF")
    return [path.name for path in paths]


def test_the_papers_figures(tmp_path):
    one = runs(tmp_path / "1", "dataset.p", [0.4, 0.5, 0.6])
    assert drawn(figure1(one, tmp_path / "figure1.png")) == ["figure1.png", "figure1.pdf"]
    two = runs(tmp_path / "2", "estimator.beta", [0.1, 0.5, 1, 5, 10], ["a"])
    assert drawn(figure2(two, tmp_path / "figure2")) == ["figure2.png", "figure2.pdf"]
    three = runs(tmp_path / "3", "estimator.num_bins", [1, 15, 45], ["a"])
    assert drawn(figure3(three, tmp_path / "figure3"))[0] == "figure3.png"
    before = (tmp_path / "figure3.pdf").read_bytes()
    figure3(three, tmp_path / "figure3")
    assert (tmp_path / "figure3.pdf").read_bytes() == before
    with pytest.raises(InputError, match="num_bins"):
        figure3(two, tmp_path / "x")
    with pytest.raises(InputError, match=r"dataset\.p"):
        figure1(two, tmp_path / "x")


def test_the_command_writes_what_it_says(tmp_path, capsys):
    runs(tmp_path / "runs", "estimator.beta", [0.1, 1.0])
    out = tmp_path / "out"
    assert report([str(tmp_path / "runs"), f"out={out}"]) == 0
    said = capsys.readouterr().out
    files = sorted(path.name for path in out.iterdir())
    assert files == [
        "tables.md",
        "w-holdout-beta.pdf",
        "w-holdout-beta.png",
        "w-holdout.csv",
        "w-holdout.tex",
    ]
    assert all(str(out / name) in said for name in files)
    with (out / "w-holdout.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["estimator"], r["estimator.beta"]) for r in rows] == [
        ("a", "0.1"),
        ("a", "1.0"),
        ("b", "0.1"),
        ("b", "1.0"),
    ]
    assert report([str(tmp_path / "runs"), f"out={tmp_path / 'md'}", "formats=md"]) == 0
    assert not list((tmp_path / "md").glob("*.csv"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "No runs"), (["formats=pdf", "x"], "formats=pdf"), (["nowhere"], "nowhere")],
)
def test_wrong_arguments_end_in_a_sentence(arguments, named):
    with pytest.raises(InputError, match=named):
        report(arguments)
