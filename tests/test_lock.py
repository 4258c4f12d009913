"""The lock files name every package of an environment by the hash of its file."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def same(name):
    """A package's name as indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name):
    """Versions by package of a lock file, with those of the file that it requires."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("--requirement "):
            found |= locked(line.split()[1])
        elif not line.startswith("#"):
            package, version = LINE.fullmatch(line).groups()
            found[same(package)] = version
    return found


def required(*extras):
    """Packages that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {same(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"upo"}


def test_every_version_of_constraints_is_locked():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    lock = locked("requirements.lock")
    for package, version in pins.items():
        if same(package) in lock:  # codespell is a hook of pre-commit alone
            assert lock[same(package)].split("+")[0] == version, package
    assert {same(package) for package in pins} - set(lock) <= {"codespell"}


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements-train.lock", ()),
        ("requirements.lock", ("dev", "docs", "wandb", "tensorboard", "joblib", "onnx", "sklearn")),
    ],
)
def test_whatever_is_required_is_locked(file, extras):
    assert required(*extras) | {"setuptools"} <= set(locked(file))


def test_lenskit_lies_over_the_others_with_another_pandas():
    over, below = locked("requirements-lenskit.lock"), locked("requirements.lock")
    pins = dict(line.split("==") for line in (ROOT / "constraints-lenskit.txt").read_text().split())
    assert pins.items() <= over.items()
    assert over.keys() & below.keys() == {"pandas"}
    assert required("lenskit") <= over.keys() | below.keys()


def test_training_needs_no_tools_of_developers():
    tools = {"pytest", "ruff", "mypy", "mkdocs", "wandb"}
    assert not tools & set(locked("requirements-train.lock"))


@pytest.mark.parametrize("file", [*(path.name for path in ROOT.glob("*.lock")), "Makefile"])
def test_no_index_is_named(file):
    assert "://" not in (ROOT / file).read_text()
