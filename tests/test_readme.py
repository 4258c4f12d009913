"""The README and the pages in docs say what is there, and their commands and examples work."""

import re
import shlex
import sys
import types
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

import upo.functional.imputation
import upo.runs.config
from upo.benchmark import compose_run, split_arguments
from upo.runs.experiment import Experiment
from upo.tuning import Settings

# the trainer's own, of a function that torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module", autouse=True)
def hydra_root():
    """One search path for the whole module."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def names(group):
    return {path.stem for path in (CONF / group).glob("*.yaml")}


def table(group):
    """Cells of the rows that begin with a link to a file of the group."""
    rows = {}
    for line in (METHODS if group == "estimator" else README).splitlines():
        match = re.match(rf"\| \[(\w+)\]\((?:\.\./)?conf/{group}/(\w+)\.yaml\) \|", line)
        if match:
            assert match[1] == match[2], line
            assert match[1] not in rows, f"{match[1]} has two rows"
            rows[match[1]] = [cell.strip() for cell in line.strip("|").split("|")]
    return rows


def blocks(text, *languages):
    """Fenced blocks of these languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in fenced if language in languages]


def example(path):
    """The block of docs/extending.md that stands for a file."""
    found = [b for b in blocks(EXTENDING, "python", "yaml") if f"# {path}" in b.splitlines()[:2]]
    assert len(found) == 1, path
    return found[0]


def commands():
    """Command lines of all pages: comments off, continued lines joined."""
    lines = []
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    lines.append(words)
    return lines


def arguments(*program):
    """What follows the program in the command lines that run it."""
    size = len(program)
    found = [
        words[start + size :]
        for words in commands()
        for start in range(len(words))
        if tuple(words[start : start + size]) == program
    ]
    assert found, f"no page runs {' '.join(program)}"
    return found


# -- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["estimator", "dataset"])
def test_every_file_has_its_row_and_every_row_its_file(group):
    assert set(table(group)) == names(group)


def test_every_estimator_belongs_to_one_family():
    linked = re.findall(r"\[(\w+)\]\(conf/estimator/(\w+)\.yaml\)", README)
    assert all(name == file for name, file in linked)
    assert sorted(name for name, _ in linked) == sorted(names("estimator"))


def test_the_number_of_estimators_is_that_of_the_files():
    count = re.search(r"compares (\d+) estimators", README)
    assert count is not None
    assert int(count[1]) == len(names("estimator"))


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_relative_to(ROOT), f"{page.name}: {target}"
        assert linked.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_class_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for path in set(re.findall(r"`((?:upo|conf|tests|docs)/[a-z0-9_/.]+\.(?:py|yaml|md))`", text)):
        assert (ROOT / path).is_file(), path
    for name in set(re.findall(r"`(upo(?:\.\w+)+)`", text)):
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


def test_the_output_of_make_train_has_its_place():
    start, end = "<!-- output of make train -->\n```text\n", "```\n<!-- end -->"
    assert README.count(start) == 1
    assert end in README[README.index(start) :]


# -- commands ----------------------------------------------------------------------------------


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in arguments("make"):
        assert words[0] in targets


CLUSTER = ("hydra/launcher=submitit", "hydra/launcher=ray", "hydra.launcher.", "+hydra.launcher.")


@pytest.mark.parametrize("words", arguments("train.py"), ids=" ".join)
def test_every_training_command_composes(words):
    many = words[0] == "-m"
    if {"--cfg", "--info"} & set(words):  # Hydra prints and runs nothing
        words = [word for word in words if "=" in word]
    parsed = OverridesParser.create().parse_overrides(words[many:])
    jobs = BasicSweeper.split_arguments(parsed, None)[0] if many else [words]
    assert many == (len(jobs) > 1)
    seen = set()
    for job in jobs[::-1]:
        if seen.issuperset(job):  # each value once, the last ones together
            continue
        seen.update(job)
        # launchers of the cluster extras are not installed for the tests
        words = [word for word in job if not word.startswith(CLUSTER)]
        config = compose("train", overrides=[*words, "logger=none"], return_hydra_config=True)
        with open_dict(config):
            del config.hydra  # parts of it exist only in a run
        OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("words", arguments("python", "-m", "upo.benchmark"), ids=" ".join)
def test_every_benchmark_command_composes(words):
    wanted = split_arguments(words)
    for estimator in wanted.rows[:2]:
        assert compose_run(estimator, wanted.words).estimator.name == estimator


@pytest.mark.parametrize("words", arguments("python", "-m", "upo.tuning"), ids=" ".join)
def test_every_tuning_command_composes(words):
    options = {field.name for field in fields(Settings)}
    own = [word for word in words if word.partition("=")[0] in options]
    assert compose("train", overrides=[word for word in words if word not in own])
    for word in own:
        key, _, value = word.partition("=")
        assert value in names("search") if key == "search" else int(value) > 0


def test_choices_in_the_text_exist():
    parts = ("backbone", "objective", "imputation", "propensity", "variant")
    for group in (*parts, "protocol", "logger", "dataset", "estimator"):
        for page in PAGES:
            found = re.findall(rf"`{group}=([\w|]+)`", page.read_text(encoding="utf-8"))
            assert {name for names_ in found for name in names_.split("|")} <= names(group), group


# -- examples ----------------------------------------------------------------------------------


def short(*overrides):
    config = compose("train", overrides=["trainer.accelerator=cpu", "logger=none", *overrides])
    with open_dict(config):
        for plan in filter(None, config.estimator.stages.values()):
            plan.update(epochs=1, steps=2)
    return Experiment(config, progress=False)


def place(folder, group, name):
    (folder / group).mkdir()
    (folder / group / f"{name}.yaml").write_text(example(f"conf/{group}/{name}.yaml"))
    return f"hydra.searchpath=[file://{folder}]"


def test_the_example_of_a_dataset_trains(tmp_path, monkeypatch):
    module = types.ModuleType("upo.data.shop")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("upo.data.shop", module, raising=False)
    exec(example("upo/data/shop.py"), module.__dict__)
    search = place(tmp_path, "dataset", "shop")
    (tmp_path / "shop").mkdir()
    for step, name in ((7, "log.csv"), (11, "uniform.csv")):
        rows = [f"{p // 40},{p % 40},{p % 5 + 1}\n" for p in range(0, 60 * 40, step)]
        (tmp_path / "shop" / name).write_text("".join(rows))
    run = short("dataset=shop", "estimator=naive", f"paths.data_dir={tmp_path}", search).run()
    assert torch.isfinite(run.metrics["auc"]).all()


def test_the_example_of_an_estimator_trains(tmp_path, monkeypatch):
    scope = {"Tensor": torch.Tensor}
    exec(example("upo/functional/imputation.py"), scope)
    part = scope["omega_root"]
    monkeypatch.setattr(upo.functional.imputation, "omega_root", part, raising=False)
    search = place(tmp_path, "estimator", "dr_root")
    world = ["dataset.n_users=40", "dataset.n_items=30", "dataset.density=0.2"]
    experiment = short("estimator=dr_root", *world, search)
    run = experiment.run()
    assert experiment.config.estimator.learners.imputation.omega["_target_"].endswith("omega_root")
    assert torch.isfinite(run.metrics["auc"]).all()
