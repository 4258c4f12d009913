"""The documentation builds without a warning, fetches nothing, and leaves no public name out."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import upo
import upo.functional
import upo.learners
import upo.losses
import upo.metrics
import upo.models

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link or a name that is not there ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {page: page.read_text(encoding="utf-8") for page in sorted(folder.rglob("*.html"))}


def test_every_page_of_the_docs_is_there(site):
    (folder,) = (page.parent for page in site if page.name == "404.html")
    pages = {page.relative_to(folder).with_suffix("").as_posix() for page in site}
    sources = (ROOT / "docs").rglob("*.md")
    assert {path.relative_to(ROOT).with_suffix("").as_posix() for path in sources} <= pages


def test_pages_load_nothing_from_elsewhere(site):
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link [^>]*href="(https?:)'
    )
    assert {
        page.name: found for page, text in site.items() if (found := loaded.findall(text))
    } == {}


def test_formulas_and_roles_are_drawn_not_quoted(site):
    raw = re.compile(r"arithmatex|\.\. math::|:math:|:func:|:class:")
    for page, text in site.items():
        prose = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert raw.findall(prose) == [], page.name
    assert sum(text.count("<math ") for text in site.values()) > 50


def modules(package):
    return {
        module.name
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith(("__main__", "upo.lenskit"))  # tests/with_lenskit has that one
    }


def public(module):
    """Public classes and functions that a module defines, and the public methods of the classes."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for inner in vars(thing):
                method = inspect.getattr_static(thing, inner)
                known = inspect.isfunction(method) or isinstance(
                    method, (property, classmethod, staticmethod)
                )
                if known and not inner.startswith("_"):
                    yield f"{module.__name__}.{name}.{inner}", getattr(thing, inner)


@pytest.mark.parametrize("module", sorted(modules(upo)))
def test_no_public_name_is_without_a_docstring(module):
    found = importlib.import_module(module)
    bare = [
        name for name, thing in public(found) if not inspect.getdoc(thing)
    ]  # or an inherited one
    assert bare == []


def place(thing):
    return f"{thing.__module__}.{thing.__qualname__}"


def test_the_reference_has_every_name_that_users_call():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    written = set(re.findall(r"^::: (\S+)$", "".join(p.read_text() for p in pages), re.MULTILINE))
    called = [getattr(upo, name) for name in upo.__all__]
    called = [upo.audit.audit if thing is upo.audit else thing for thing in called]
    wanted = {place(thing) for thing in called if not inspect.ismodule(thing)}
    wanted |= {f"upo.losses.{name}" for name in upo.losses.__all__}
    wanted |= {place(getattr(upo.metrics, name)) for name in upo.metrics.__all__}
    for package in (upo.functional, upo.learners, upo.models):
        found = {name: importlib.import_module(name) for name in modules(package)}
        wanted |= {name for name, module in found.items() if any(public(module))}
    assert wanted - written == set()


def test_the_page_of_the_house_has_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
        for name in row.split("`")[1::2]
    }
    rooms = {path.parent.name for path in (ROOT / "upo").glob("*/__init__.py")}
    rooms |= {path.stem for path in (ROOT / "upo").glob("*.py")}
    assert rooms <= named


def test_one_version_is_stated_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "upo.__version__"}
    assert f"version: {upo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {upo.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
