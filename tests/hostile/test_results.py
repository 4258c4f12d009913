"""``upo report`` of results that somebody made up: nothing is written or waited for elsewhere."""

import csv
import math
import os
from pathlib import Path

import pandas as pd
import pytest

from upo.core.text import file_name, guarded, latex, markdown
from upo.errors import InputError
from upo.report.__main__ import main
from upo.report.gather import gather
from upo.runs.results import spread

NAMES = ["../../evil", "/etc/evil", "a/b", "..", "", "x" * 300, "a\nb", "\x1b[31mred", "\u202etac",
         r"\input{/etc/passwd}", "$\\frac{", "|a|b|", "<script>", "=cmd|' /C calc'!A0", "`a`",
         "CON", "a\0b"]  # fmt: skip


def results(folder, dataset="toy", **values):
    row = {"dataset": dataset, "estimator": "ips", "protocol": "holdout", "seed": 0, "auc": 0.7,
           "best_epoch": 1, "parameters": 10, "train_seconds": 1.0, **values}  # fmt: skip
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_name_is_no_path(number, tmp_path, capsys):
    run = results(tmp_path / "deep" / "run", NAMES[number])
    out = tmp_path / "deep" / "out"
    before = {path for path in tmp_path.rglob("*") if out not in (path, *path.parents)}
    try:
        main([str(run), f"out={out}"])
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert {p for p in tmp_path.rglob("*") if out not in (p, *p.parents)} == before
    assert all(path.is_file() and path.parent == out for path in out.iterdir())
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    for path in out.glob("*.tex"):
        assert "\\input" not in path.read_text()
    assert not [x for x in (out / "tables.md").read_text().split("\n") if not x.isprintable()]


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    run = results(tmp_path / "run")
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "summary.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe" / "results.csv")
    assert len(gather([tmp_path])) == 1
    with pytest.raises(InputError):
        gather([tmp_path / "pipe"])
    (run / "results.csv").unlink()
    (run / "results.csv").symlink_to("/dev/zero")
    with pytest.raises(InputError):
        gather([run])


@pytest.mark.parametrize("value", ["inf", "-inf", "1e999"])
def test_infinity_survives(value, tmp_path):
    run = results(tmp_path / "run", auc=value)
    main([str(run), f"out={tmp_path / 'out'}"])
    table = pd.read_csv(next((tmp_path / "out").glob("*.csv")))
    assert table.auc[0] == float(value)
    assert math.isnan(spread([math.inf, -math.inf])["mean"])


@pytest.mark.parametrize("column", ["seed", "parameters", "best_epoch", "train_seconds"])
@pytest.mark.parametrize("value", ["inf", "nan", "many", "9" * 400, ""])
def test_odd_numbers_end_in_a_table_or_a_sentence(column, value, tmp_path):
    run = results(tmp_path / "run", **{column: value})
    try:
        main([str(run), f"out={tmp_path / 'out'}"])
    except InputError as error:
        assert len(str(error)) < 700  # noqa: PT017


def test_text_for_people():
    assert file_name("a/b") != file_name("a_b")
    assert Path(file_name("../../x")).name == file_name("../../x")
    assert markdown("a|b*c") == r"a\|b\*c"
    assert latex("a_b\\x") == r"a\_b\textbackslash{}x"
    frame = guarded(pd.DataFrame({"=a": ["=1+1", "-x", "@y", "z"], "n": [-1.0, 2.0, 3.0, 4.0]}))
    assert frame["'=a"].tolist() == ["'=1+1", "'-x", "'@y", "z"]
    assert frame["n"].tolist() == [-1.0, 2.0, 3.0, 4.0]
