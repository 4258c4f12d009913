"""``python -m upo.predict``: answers of a run folder, ids as they were given, and sentences."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from processes import command

import upo
from upo import cli, predict
from upo.core.console import sentences
from upo.data.world import SyntheticWorld
from upo.errors import InputError
from upo.fitted.run_folder import load_model

ROOT = Path(__file__).resolve().parents[1]
WORLD = SyntheticWorld(30, 20, density=0.3)
QUICK = [
    "estimator.fit.epochs=2",
    "estimator.stages.debias.epochs=2",
    "figures=false",
    "progress=false",
    "logger=none",
]


def log_frame():
    """Ratings whose user ids are text with zeros before, and whose item ids are numbers."""
    rows = WORLD.log()
    users = [f"{u:03d}" for u in rows.users.tolist()]
    return pd.DataFrame({"user": users, "item": 10 + rows.items, "rating": rows.ratings})


def train(folder, *overrides, cwd=ROOT):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["train.py", *QUICK, *overrides, f"hydra.run.dir={folder}"])
        cli.main()
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A log, pairs to ask for, and two finished runs: of the log, with a path relative to it."""
    home = tmp_path_factory.mktemp("home")
    log_frame().to_csv(home / "log.csv", index=False)
    ask = pd.DataFrame(
        {
            "user": ["001", "1", "new", "001", "=cmd|' /C calc'!A0"],
            "note": ["x"] * 5,
            "item": ["10", "11", "12", "none", "none"],
        }
    )
    ask.to_csv(home / "ask.csv", index=False)
    train(
        home / "run", "dataset=table", "dataset.train=log.csv", "estimator=ips", "seeds=2", cwd=home
    )
    train(home / "naive", "estimator=naive", "dataset.n_users=30", "dataset.n_items=20",
          "dataset.density=0.3")  # fmt: skip
    return home


def ask(home, *words, run="run"):
    """Run the command in this process; the answer as text."""
    out = next((Path(w.removeprefix("out=")) for w in words if w.startswith("out=")), None)
    given = [f"run={home / run}", "progress=false", *words]
    if out is None:
        out = home / "answer.csv"
        given.append(f"out={out}")
    predict.main(given)
    return pd.read_csv(out, dtype={"user": str, "item": str}) if out.suffix == ".csv" else out


def test_the_share_of_unseen_ids_is_said_once_below(home, capsys):
    ask(home, f"pairs={home / 'ask.csv'}", "propensity=true")
    said = capsys.readouterr().out
    assert said.count("Warning: ") == 1
    assert "4 of 5 pairs (80.0%) have an id" in said
    assert "the user in 60.0%, the item in 40.0%" in said
    ask(home, "top_k=2", f"users={home / 'ask.csv'}")
    assert "3 of 5 users (60.0%) have an id" in capsys.readouterr().out
    log_frame().to_csv(home / "known.csv", index=False)
    ask(home, f"pairs={home / 'known.csv'}")
    assert "Warning" not in capsys.readouterr().out


def test_answers_are_those_of_the_trained_networks(home):
    """The predictions give the metrics that the run itself has written."""
    state = torch.load(home / "run" / "checkpoints" / "debias.pt", weights_only=True)
    model = load_model(home / "run")
    for name, value in model.estimator.state_dict().items():
        assert torch.equal(value, state["estimator"][name]), name
    assert model.metrics.seed.tolist() == model.seeds == [0, 1]
    found = ask(home, f"pairs={home / 'ask.csv'}", "propensity=true")
    assert list(found) == ["user", "item", "prediction", "propensity"]
    pairs = pd.read_csv(home / "ask.csv", dtype=str)
    assert found.user.tolist() == pairs.user.tolist()  # as they were written
    assert found.item.tolist() == pairs.item.tolist()
    for what in ("predict", "propensity"):
        with pytest.warns(upo.UnseenIdsWarning, match="4 of 5 pairs"):
            expected = getattr(model, what)(pairs)
        np.testing.assert_allclose(found[expected.name], expected, rtol=1e-12)


def test_a_run_on_the_embedded_world_answers_for_indices(home):
    model = load_model(home / "naive")
    test = WORLD.uniform_sample(16)
    frame = pd.DataFrame({"user": test.users, "item": test.items})
    auc = upo.metrics.AUC()
    labels = test.labels(WORLD.label_rule)
    auc.update(torch.tensor(model.predict(frame).to_numpy()), labels)
    assert float(auc.compute()) == pytest.approx(model.metrics.auc[0], abs=1e-9)


def test_a_run_on_a_log_of_the_battery_is_read_again(home):
    train(home / "battery", "dataset=battery", "dataset.log=tiny", "estimator=naive")
    model = load_model(home / "battery")
    assert model.about["data"].startswith("battery-tiny: 60 users x 40 items")


def test_seeds_have_a_column_each(home):
    mean = ask(home, f"pairs={home / 'ask.csv'}")
    each = ask(home, f"pairs={home / 'ask.csv'}", "seeds=separate")
    assert list(each) == ["user", "item", "prediction_seed_0", "prediction_seed_1"]
    np.testing.assert_allclose(each.iloc[:, 2:].mean(axis=1), mean.prediction, rtol=1e-12)


def test_blocks_and_formats_change_nothing(home, monkeypatch):
    many = pd.concat([pd.read_csv(home / "ask.csv", dtype=str)] * 50, ignore_index=True)
    many["note"] = [f'a "{k}",\n\r\n001,10\n' for k in range(len(many))]  # not read
    many.to_csv(home / "many.csv", index=False)
    many.to_parquet(home / "many.parquet")
    many.astype("category").to_parquet(home / "many.pq")
    many.to_csv(home / "many.tsv.gz", index=False, sep="\t")
    whole = ask(home, f"pairs={home / 'many.csv'}")
    assert len(whole) == 250
    monkeypatch.setattr("upo.tables.files.ROWS", 7)
    monkeypatch.setattr("upo.tables.csv_blocks.BYTES", 256)
    for name in ("many.csv", "many.parquet", "many.pq", "many.tsv.gz"):
        pd.testing.assert_frame_equal(ask(home, f"pairs={home / name}"), whole, rtol=1e-6)
    out = ask(home, f"pairs={home / 'many.csv'}", f"out={home / 'a.parquet'}")
    pd.testing.assert_frame_equal(pd.read_parquet(out), whole, rtol=1e-6)
    out = ask(home, f"pairs={home / 'many.csv'}", f"out={home / 'a.csv.gz'}")
    again = pd.read_csv(out, dtype={"user": str, "item": str})
    pd.testing.assert_frame_equal(again, whole, rtol=1e-6)


@pytest.mark.parametrize("seen", [True, False])
def test_recommendations_are_those_of_the_model(home, seen):
    pd.DataFrame({"user": ["002", "new", "000", "002"]}).to_csv(home / "users.csv", index=False)
    words = ["top_k=4", f"users={home / 'users.csv'}", f"exclude_seen={not seen}".lower()]
    found = ask(home, *words)
    expected = load_model(home / "run").recommend(
        ["002", "new", "000", "002"], 4, exclude_seen=not seen
    )
    pd.testing.assert_frame_equal(
        found, expected.assign(item=expected.item.astype(str)), check_dtype=False
    )
    pairs = set(zip(log_frame().user, log_frame().item.astype(str), strict=True))
    assert seen == bool(pairs & set(zip(found.user, found.item, strict=True)))


def test_without_users_everyone_of_the_log_is_served(home):
    found = ask(home, "top_k=1")
    assert sorted(found.user) == sorted(log_frame().user.unique())


@pytest.mark.filterwarnings("ignore::upo.UselessModelWarning")  # two epochs
def test_a_saved_model_answers_too(home):
    few = {"estimator.stages.debias.epochs": 2, "trainer.accelerator": "cpu"}
    model = upo.fit(log_frame(), estimator="naive", overrides=few, progress=False)
    model.save(home / "saved")
    found = ask(home, f"pairs={home / 'ask.csv'}", run="saved")
    pairs = pd.read_csv(home / "ask.csv", dtype=str)
    with pytest.warns(upo.UnseenIdsWarning, match="4 of 5 pairs"):
        np.testing.assert_allclose(found.prediction, model.predict(pairs), rtol=1e-12)


def test_an_empty_question_has_an_empty_answer(home):
    (home / "none.csv").write_text("user,item\n")
    assert list(ask(home, f"pairs={home / 'none.csv'}")) == ["user", "item", "prediction"]
    (home / "nobody.csv").write_text("user\n")
    found = ask(home, "top_k=3", f"users={home / 'nobody.csv'}")
    assert list(found) == ["user", "item", "score", "rank"]
    assert found.empty


def test_a_log_that_was_moved_is_named(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    config = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    config.dataset.train = "gone.csv"
    OmegaConf.save(config, tmp_path / "run" / ".hydra" / "config.yaml")
    with pytest.raises(InputError, match=r"gone.csv is not a file"):
        load_model(tmp_path / "run")
    model = load_model(tmp_path / "run", log=home / "log.csv")
    assert model.predict(pd.DataFrame({"user": ["001"], "item": [10]})).notna().all()
    log_frame().iloc[1:].assign(user=lambda x: "9" + x.user).to_csv(tmp_path / "other.csv")
    with pytest.raises(InputError, match="lists other ids"):
        load_model(tmp_path / "run", log=tmp_path / "other.csv")


def spoil(kind, folder):
    """Damage a copied run folder."""
    config = folder / ".hydra" / "config.yaml"
    checkpoint = folder / "checkpoints" / "debias.pt"
    if kind == "unfinished":
        checkpoint.unlink()
    elif kind == "interrupted":
        torch.save({**torch.load(checkpoint, weights_only=True), "done": False}, checkpoint)
    elif kind == "other schema":
        torch.save({**torch.load(checkpoint, weights_only=True), "schema": 99}, checkpoint)
    elif kind == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    elif kind == "no config":
        config.unlink()
    elif kind == "config of another program":
        config.write_text("a: 1\n")
    elif kind == "config no yaml":
        config.write_text("a: [1\n b: }")
    elif kind == "foreign network":
        text = config.read_text()
        config.write_text(re.sub(r"upo\.models\.\w+\.\w+", "os.system", text))
    elif kind == "foreign dataset":
        config.write_text(config.read_text().replace("upo.data.table.TableDataModule", "os.system"))
    elif kind == "other sizes":
        content = torch.load(checkpoint, weights_only=True)
        content["estimator"] = {k: v[:1] for k, v in content["estimator"].items()}
        torch.save(content, checkpoint)


@pytest.mark.parametrize(
    ("kind", "fragment"),
    [
        ("unfinished", "is not finished: stage debias"),
        ("interrupted", "is not finished: stage debias"),
        ("other schema", "checkpoint schema 99"),
        ("truncated", "not a readable checkpoint"),
        ("no config", "no folder of a run"),
        ("config of another program", "lacks"),
        ("config no yaml", "not a readable YAML"),
        ("foreign network", "would build os.system"),
        ("foreign dataset", "would build os.system"),
        ("other sizes", "other names or sizes"),
    ],
)
def test_a_folder_that_cannot_answer_says_why(home, tmp_path, kind, fragment, capsys):
    shutil.copytree(home / "run", tmp_path / "run")
    spoil(kind, tmp_path / "run")
    out = tmp_path / "out.csv"
    words = [f"run={tmp_path / 'run'}", f"pairs={home / 'ask.csv'}", f"out={out}"]
    with pytest.raises(SystemExit) as stop:
        sentences(lambda: predict.main(words))
    message = capsys.readouterr().err
    assert stop.value.code == 1
    assert fragment in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]  # no partial file


WRONG = {
    "nothing asked": ([], "either pairs=FILE or top_k=N"),
    "both asked": (["pairs=ASK", "top_k=1"], "either pairs=FILE or top_k=N"),
    "unknown key": (["pears=ASK"], "is not understood"),
    "no key": (["ASK"], "is not understood"),
    "twice": (["pairs=ASK", "pairs=ASK"], "more than once"),
    "k of text": (["top_k=ten"], "top_k must be a whole number"),
    "k of 0": (["top_k=0"], "at least 1"),
    "flag of text": (["pairs=ASK", "propensity=perhaps"], "true or false"),
    "seeds": (["pairs=ASK", "seeds=all"], "average or separate"),
    "users of pairs": (["pairs=ASK", "users=ASK"], "belongs to top_k"),
    "propensity of users": (["top_k=1", "propensity=true"], "belong to pairs"),
    "no such file": (["pairs=nowhere.csv"], "is not a file"),
    "no such column": (["pairs=ASK", "user=who"], "has no column who"),
    "unknown suffix": (["pairs=ASK", "out=answer.xlsx"], "ends in .xlsx"),
    "no place": (["pairs=ASK", "out=ASK/answer.csv"], "cannot be written"),
    "empty word": (["pairs="], "Give either"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_end_in_one_sentence(home, name):
    words, fragment = WRONG[name]
    words = [word.replace("ASK", str(home / "ask.csv")) for word in words]
    with pytest.raises(InputError) as error:
        ask(home, *words)
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_gaps_are_named_by_their_row_in_any_block(home, monkeypatch):
    monkeypatch.setattr("upo.tables.files.ROWS", 2)
    pd.DataFrame({"user": ["a"] * 5, "item": ["b"] * 4 + [None]}).to_parquet(home / "gap.parquet")
    with pytest.raises(InputError, match="row 5 has no item"):
        ask(home, f"pairs={home / 'gap.parquet'}")


def test_propensities_of_a_method_without_are_refused(home):
    with pytest.raises(InputError, match="learns no propensity"):
        ask(home, f"pairs={home / 'ask.csv'}", "propensity=true", run="naive")


def test_the_command_itself(home):
    """An answer, a progress bar, and a sentence."""
    call = ["-m", "upo.predict", f"run={home / 'run'}"]
    out = home / "deep" / "true.csv"
    done = command(*call, f"pairs={home / 'ask.csv'}", f"out={out}")
    assert done.returncode == 0, done.stderr
    assert "5 rows" in done.stdout
    assert "rows/s" in done.stderr
    assert len(pd.read_csv(out)) == 5
    assert [p.name for p in out.parent.iterdir()] == ["true.csv"]
    done = command(*call, "top_k=0", f"out={out}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: top_k must be at least 1")
