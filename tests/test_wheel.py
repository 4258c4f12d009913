"""What is installed: every folder of upo/, and conf/ as upo/conf, from which upo.fit composes."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIT = """
import pandas as pd, upo, upo.runs.compose
rows = [(u, i, 1 + (u * i) % 5) for u in range(30) for i in range(20) if (3 * u + i) % 4]
few = {f"estimator.stages.{stage}.epochs": 1 for stage in ("propensity", "refine", "debias")}
log = pd.DataFrame(rows, columns=["user", "item", "rating"])
fitted = upo.fit(log, estimator="dr_jl", objective="snips", progress=False, overrides=few)
fitted.save("model")
print(len(upo.load("model").predict(log[["user", "item"]])), upo.runs.compose.conf_dir())
"""


def test_every_folder_of_upo_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT).parts for path in ROOT.glob("upo/**/__init__.py")]
    assert sorted(settings["packages"]) == sorted([*(".".join(f) for f in folders), "upo.conf"])
    assert settings["package-dir"]["upo.conf"] == "conf"


@pytest.mark.slow
def test_the_wheel_fits_outside_a_checkout(tmp_path):
    source, home = tmp_path / "source", tmp_path / "home"
    for name in ("upo", "conf", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(home)
    installed = {
        path.relative_to(home / "upo" / "conf") for path in home.glob("upo/conf/**/*.yaml")
    }
    assert installed == {path.relative_to(ROOT / "conf") for path in ROOT.glob("conf/**/*.yaml")}
    assert not list(home.rglob("*.ascii"))
    done = subprocess.run(
        [sys.executable, "-c", FIT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["450", str(home / "upo" / "conf")]
    assert installed == {
        path.relative_to(home / "upo" / "conf")
        for path in home.glob("upo/conf/**/*")
        if path.is_file()
    }  # nothing is written into the package
