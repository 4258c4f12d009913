"""What is installed, and that it does its work in an empty environment, outside any checkout."""

import csv
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
AUTOMATION = (".ci/", ".github/")  # of the repository, not of the project
OF_A_BUILD = {"PKG-INFO", "setup.cfg"}

FIT = """
import sys
import pandas as pd, upo

assert ".venv" not in upo.__file__ and "site-packages" in upo.__file__, upo.__file__
rows = [(f"u{u}", i, 1 + (u * i) % 5) for u in range(30) for i in range(20) if (3 * u + i) % 4]
log = pd.DataFrame(rows, columns=["user", "item", "rating"])
log.to_csv("log.csv", index=False)
few = {f"estimator.stages.{stage}.epochs": 2 for stage in ("propensity", "refine", "debias")}
model = upo.fit(log, estimator="dr_jl", objective="snips", progress=False, overrides=few)
model.save("model")
loaded = upo.load("model")
assert loaded.predict(log).equals(model.predict(log))
assert loaded.propensity(log).between(0, 1).all()
loaded.pairs().to_csv("pairs.csv", index=False)
audit = upo.audit(loaded.pairs())
print(audit.summary())
audit.save("audit")
"""
SMALL = ("dataset=table", "dataset.train=log.csv", "estimator=ips", "figures=false")
WORLD = ("dataset=synthetic", "dataset.n_users=40", "dataset.n_items=30", "estimator=ips")


def test_every_folder_of_upo_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT).parts for path in ROOT.glob("upo/**/__init__.py")]
    assert sorted(settings["packages"]) == sorted([*(".".join(f) for f in folders), "upo.conf"])
    assert settings["package-dir"]["upo.conf"] == "conf"


def tracked():
    """Files of the repository, without its automation."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {name for name in listed if not name.startswith(AUTOMATION) and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a wheel and a source archive, built from a copy of what is tracked."""
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, "source"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def home(built):
    """A folder outside the checkout, with an environment that has the wheel and nothing of ours."""
    home = built / "home"
    venv.create(home / "env", with_pip=True)
    (wheel,) = built.glob("*.whl")
    for what in ("torch", str(wheel)):
        pip = ["python", "-m", "pip", "install", "--quiet", "--constraint"]
        run(home, *pip, str(ROOT / "constraints.txt"), what)
    return home


def run(home, *words):
    """What a command of the environment prints; it knows neither the checkout nor this user."""
    ours = ("PYTHON", "UPO_", "HYDRA_", "XDG_", "VIRTUAL_ENV")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    path = f"{home / 'env' / 'bin'}{os.pathsep}{plain['PATH']}"
    data = {"XDG_DATA_HOME": str(home / "data"), "OMP_NUM_THREADS": "1", "PATH": path}
    program = home / "env" / "bin" / words[0]
    done = subprocess.run(
        [program, *words[1:]],
        cwd=home,
        env=plain | data,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_archives_hold_what_they_should(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    ours = {
        "upo/" + name.removeprefix("upo/")
        for name in tracked()
        if name.startswith(("upo/", "conf/"))
    }
    assert inside == ours
    with tarfile.open(sdist) as file:
        names = {m.name.partition("/")[2] for m in file.getmembers() if m.isfile()}
    assert {name for name in names - OF_A_BUILD if ".egg-info/" not in name} == tracked()
    assert not [name for name in names if name.endswith((".ascii", ".parquet", ".data", ".base"))]


@pytest.mark.slow
def test_an_install_in_an_empty_environment_does_all_of_it(home):
    printed = run(home, "python", "-c", FIT)
    assert "effective sample size" in printed
    assert (home / "audit" / "report.html").is_file()
    installed = {p: p.read_bytes() for p in home.glob("env/lib/*/site-packages/upo/**/*.yaml")}
    assert installed

    for command in ("train", "predict", "audit", "evaluate", "tune", "benchmark", "report"):
        assert f"upo {command}" in run(home, "upo", command, "--help")
    run(home, "upo", "train", *SMALL, "seeds=2", "hydra.run.dir=run")
    with (home / "run" / "results.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]
    run(home, "upo", "predict", "run=run", "pairs=log.csv", "out=answers.csv")
    with (home / "answers.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 450
    run(home, "upo", "audit", "pairs=pairs.csv", "out=page")

    run(home, "upo", "tune", *WORLD, "search=small", "trials=2", "batch=2")
    (tuned,) = home.glob("data/upo/conf/tuned/holdout/synthetic/*/ips.yaml")
    run(home, "upo", "train", *WORLD, "seeds=1", "hydra.run.dir=next")
    found, used = (
        yaml.safe_load(path.read_text())["estimator"]["learners"]["prediction"]["penalty"]
        for path in (tuned, home / "next" / ".hydra" / "config.yaml")
    )
    assert found == used
    run(home, "upo", "benchmark", *SMALL[:2], "estimators=naive,ips", "seeds=2", "out=bench")
    run(home, "upo", "report", "outputs/benchmark", "run", "out=report")
    assert "naive" in (home / "report" / "tables.md").read_text()
    assert installed == {
        p: p.read_bytes() for p in installed
    }  # nothing is written into the package
