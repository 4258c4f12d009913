"""The leaderboard of made-up runs of which every difference is known."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from small_reports import row, write_run

from upo.errors import InputError
from upo.figures import critical_difference
from upo.report.__main__ import main as report
from upo.report.gather import gather
from upo.report.leaderboard import boards, over_logs
from upo.runs.by_user import write_users

SEEDS, USERS = 4, 60
NOISE = np.random.default_rng(0).normal(0, 0.02, (2, SEEDS, USERS))
BASE = np.random.default_rng(1).normal(0.7, 0.1, USERS)
HELD = {"held_ece": 0.004, "held_bmse": 0.02, "held_ece_floor": 0.003, "held_bmse_floor": 0.01}
COST = {"clip": 0.05, "clip_share": 0.1, "effective_sample_size": 0.8, "trials": 16}
COST |= {"trial_seeds": 1, "epochs": 70, "catalogue_recall@5": 0.03}


def write(folder, name, gain, *, kept=True, **values):
    """A row whose AUC lies ``gain`` above that of naive, for every user."""
    table = BASE + gain + NOISE[0 if name == "naive" else 1] * 0.1
    rows = []
    for seed in range(SEEDS):
        auc = float(np.float32(table[seed]).mean())
        measured = {"auc": auc, "ndcg@5": auc, "f1@5": auc, "log_loss": 1 - auc}
        rows.append(row(name, seed=seed) | measured | HELD | COST | values)
    write_run(folder / name, rows)
    if kept:
        parts = np.stack([table, table, table, 1 - table])
        pair = torch.arange(USERS), torch.from_numpy(parts)
        write_users(folder / name, pair, range(SEEDS), 5)


@pytest.fixture
def runs(tmp_path):
    write(tmp_path / "runs", "naive", 0.0, held_ece=float("nan"), held_bmse=float("nan"))
    write(tmp_path / "runs", "better", 0.02, held_ece=0.003)
    write(tmp_path / "runs", "same", 0.0001)
    write(tmp_path / "runs", "worse", -0.03, held_ece=0.009)
    return tmp_path / "runs"


def test_rows_are_compared_with_naive_and_with_the_best(runs):
    (board,) = boards(gather([runs]))
    frame = board.frame.set_index("row")
    assert next(iter(frame.index)) == "better"
    assert list(frame.index)[-1] == "worse"
    assert frame.auc_naive["better"] == pytest.approx(0.02, abs=1e-3)
    assert frame.auc_naive_low["better"] > 0.018
    assert frame.auc_naive_p["better"] < 0.01
    assert frame.auc_naive_p["same"] > 0.05
    assert frame.log_loss_naive["worse"] == pytest.approx(0.03, abs=1e-3)
    assert np.isnan(frame.auc_naive["naive"])
    assert frame.auc_top["worse"] == pytest.approx(-0.05, abs=1e-3)
    assert frame.auc_best.tolist() == [True, False, False, False]
    assert not frame.auc_tied[["naive", "same", "worse"]].any()
    assert frame.held_ece_best["better"]
    assert board.ranks is not None
    assert board.ranks.mean.argmin() == 0
    assert board.notes == []


def test_naive_may_win(runs):
    write(runs, "better", -0.01)
    (board,) = boards(gather([runs]))
    # `same` has naive's mean but for a thousandth of a standard deviation
    assert set(board.frame["row"][:2]) == {"naive", "same"}
    assert board.frame["auc_tied"][:2].all()


def test_the_command_writes_page_numbers_and_figure(runs, tmp_path, capsys):
    page = tmp_path / "out" / "leaderboard.md"
    assert report([str(runs), f"leaderboard={page}"]) == 0
    text = page.read_text()
    assert "AUC above that of naive after Holm: better." in text
    assert "AUC below that of naive after Holm: worse." in text
    assert "**3** (3)" in text  # held ECE, in thousandths, with its floor
    assert "16 x 1, 70" in text
    assert "| 10% | 0.80 |" in text
    (picture,) = page.parent.glob("*-ranks.png")
    assert picture.name in text
    with Image.open(picture) as image:
        assert image.width > 300
    with page.with_suffix(".csv").open(newline="") as file:
        assert {row["row"] for row in csv.DictReader(file)} == {"naive", "better", "same", "worse"}
    assert str(page) in capsys.readouterr().out
    with pytest.raises(InputError, match=r"must end in \.md"):
        report([str(runs), "leaderboard=x.csv"])


def test_other_budgets_and_edges_are_said(runs):
    write(runs, "worse", -0.03, trials=64)
    (runs / "same" / "summary.json").write_text('{"search_notes": ["lr=1 lies at the high edge"]}')
    (board,) = boards(gather([runs]))
    assert "64 x 1: worse" in board.notes[0]
    assert board.notes[1] == "same: lr=1 lies at the high edge"


def test_runs_of_before_have_means_alone(tmp_path):
    write(tmp_path, "naive", 0.0, kept=False)
    write_run(tmp_path / "old", [row("old", seed=s) for s in range(SEEDS)])
    (board,) = boards(gather([tmp_path]))
    assert board.ranks is None
    assert "auc_naive" not in board.frame
    assert report([str(tmp_path), f"leaderboard={tmp_path / 'x.md'}"]) == 0


def test_worlds_and_backbones(tmp_path):
    for p in (0.4, 0.5):
        for backbone in ("mf", "fm"):
            config = {"dataset": {"p": p}, "estimator": {"backbone": backbone}}
            folder = tmp_path / f"{p}{backbone}"
            write_run(folder, [row("ips", seed=s) for s in range(2)], config)
    found = boards(gather([tmp_path]))
    assert [board.title for board in found] == ["w, p=0.4, holdout", "w, p=0.5, holdout"]
    assert set(found[0].frame["row"]) == {"ips backbone=mf", "ips backbone=fm"}


def test_rows_that_learned_from_other_logs_share_no_board(tmp_path):
    write(tmp_path, "naive", 0.0, kept=False)
    for name, share in (("ips", 0.1), ("dr_jl", 0.0)):
        config = {"propensity": {"withhold": share}}
        write_run(tmp_path / name, [row(name, seed=s) for s in range(2)], config)
    found = boards(gather([tmp_path]))
    rows = [set(board.frame["row"]) for board in found]
    assert {"ips"} in rows
    assert not any({"ips", "dr_jl"} <= each for each in rows)


def test_rows_are_ranked_over_logs(tmp_path):
    for log in range(4):
        for place, name in enumerate(("naive", "ips", "dr_jl")):
            auc = 0.7 - 0.01 * (place if log else 2 - place)
            rows = [row(name, seed=s, dataset=f"log{log}", auc=auc) for s in range(2)]
            write_run(tmp_path / f"{log}{name}", rows)
    write_run(tmp_path / "alone", [row("eib", seed=0, dataset="log0")])  # on one log: not ranked
    found = boards(gather([tmp_path]))
    together = over_logs(found)
    assert together is not None
    names, ranks = together
    mean = dict(zip(names, ranks.mean, strict=True))
    assert mean == {"naive": 1.5, "ips": 2.0, "dr_jl": 2.5}
    assert over_logs(found[:2]) is None
    page = tmp_path / "page.md"
    assert report([str(tmp_path), f"leaderboard={page}"]) == 0
    assert "## Over 4 logs, by auc" in page.read_text()
    assert (tmp_path / "page-logs-ranks.png").is_file()


def test_the_figure_takes_a_rank_for_each_row():
    figure = critical_difference(["a", "b"], [1.0, 2.0], [(0, 1)], 1.5)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="a rank for each row"):
        critical_difference(["a"], [1.0, 2.0], [], 1.0)
