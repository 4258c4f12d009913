"""Every estimator on two and three processes, and the ways to launch several."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from processes import command, found_by_ranks
from rows import KINDS, NAMES

from upo.evaluation.diagnostics import Diagnostics
from upo.evaluation.mar import MarSet, heldout_error
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled
from upo.runs.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]
SIZES = (2, 3)
EPOCHS = 2
WORLD = [
    "backbone=mf_plain",
    "fit=fixed",
    "dataset=synthetic",
    "dataset.n_users=30",
    "dataset.n_items=40",
    "dataset.density=0.2",
    "dataset.test_per_user=5",
    "seeds=[0,5]",
    # Tables that start small leave Adam to divide gradients that nearly cancel by themselves: one
    # process then amplifies a last-bit change of its start to 1e-4 within 100 steps. Not these.
    "estimator.networks.prediction.init_std=0.5",
    "estimator.networks.prediction.dim=8",
]
O_BATCH, D_BATCH = 37, 101  # divisible by neither 2 nor 3


def configure(name, overrides=()):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=[f"estimator={name}", *WORLD, *overrides])
    for plan in filter(None, config.estimator.stages.values()):
        with open_dict(plan):
            plan.observed_batch = O_BATCH if plan.get("observed_batch") else 0
            plan.pair_batch = D_BATCH if plan.get("pair_batch") else 0
    return config


class Run:
    """One estimator on the small world; this process's part of it."""

    def __init__(self, config, dtype):
        self.config = config.estimator
        experiment = Experiment(config, progress=False)
        self.data, self.protocol = experiment.datamodule.data, experiment.protocol
        self.mar = MarSet(self.data, experiment.datamodule.k)
        self.protocol.use(self.mar)
        space = PairSpace.of(experiment.datamodule.data, experiment.seeds, self.protocol.holdout)
        self.estimator = build_estimator(self.config, space)
        self.estimator.networks.to(dtype)
        self.drawn = []  # [R, b] indices of each step

    def train(self, steps):
        """So many steps of every stage."""
        for name in scheduled(self.config):
            stage = build_stage(name, self.config, self.estimator, self.protocol)
            learners, each = stage.learners.values(), steps // EPOCHS
            for learner in learners:
                learner.on_stage_start()
            for epoch in range(EPOCHS):
                for learner in learners:
                    learner.on_epoch_start(epoch, stage.sampler)
                for batch in stage.sampler.chunk(epoch * each, each):
                    for pairs in batch.parts:
                        self.drawn.append(pairs.users * pairs.space.n_items + pairs.items)
                    for learner in learners:
                        learner.update(batch)
            self.changed()
        return {k: v.detach().clone() for k, v in self.estimator.networks.state_dict().items()}

    def changed(self):
        for role in self.estimator.networks:
            self.estimator.stepped(str(role))

    def measure(self, state):
        """Every metric of given parameters; also of two test rows, too few for three ranks."""
        self.estimator.networks.load_state_dict(state)
        self.changed()
        few = MarSet(self.data, self.mar.k)
        chosen = [int((self.mar.labels == label).nonzero()[0]) for label in (0, 1)]
        for part in ("users", "items", "labels"):
            setattr(few, part, getattr(self.mar, part)[chosen])
        with torch.no_grad():
            values = {f"few {k}": v for k, v in few.measure(self.estimator).items()}
            values |= self.mar.measure(self.estimator)
            if self.estimator.space.n_held:  # a protocol may hold nothing of the log out
                values["held"] = heldout_error(self.estimator, weighted=False)
            if self.estimator.has_propensity:
                values |= Diagnostics(self.data, self.mar).measure(self.estimator).values
        return values


def of_a_rank(_, __, configs, dtype, steps, states):
    """Of each estimator, of which the parameters that one process has learned lie in a file."""
    states, found = torch.load(states), {}
    for name, config in configs.items():
        run = Run(config, dtype)
        state = run.train(steps)
        found[name] = state, run.drawn, run.measure(states[name])
    return found


def of_one(configs, dtype, steps, folder):
    """What one process finds, and a file of what it has learned."""
    alone, states = {}, folder / "alone.pt"
    for name, config in configs.items():
        run = Run(config, dtype)
        state = run.train(steps)
        alone[name] = state, run.drawn, run.measure(state)
    torch.save({name: state for name, (state, _, _) in alone.items()}, states)
    return alone, states


# type, steps, tolerance of parameters and of metrics of the same parameters: a sigmoid's last bit
# depends on where in its slice a row stands
SETTINGS = {
    # float64 shows that the mathematics is exact: only another order of summation is left
    "float64": (torch.float64, 8, 1e-11, 1e-9),
    # float32: as above, carried through 100 steps of every stage
    "float32-100": (torch.float32, 100, 1e-5, 1e-9),
    "float64-100": (torch.float64, 100, 1e-11, 1e-9),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """What one process and two ranks find, of the rows that differ in kind."""
    return found_by(KINDS, "float64", [min(SIZES)], tmp_path_factory)


@pytest.fixture(scope="module", params=[key for key in SETTINGS if key != "float64"])
def every_row(request, tmp_path_factory):
    """The same of all rows."""
    return found_by(NAMES, request.param, SIZES, tmp_path_factory)


def found_by(names, setting, sizes, tmp_path_factory):
    """Of one process and of several, and the tolerances."""
    dtype, steps, *tolerances = SETTINGS[setting]
    configs = {name: configure(name) for name in names}
    folder = tmp_path_factory.mktemp("gloo")
    alone, states = of_one(configs, dtype, steps, folder)
    ranks = found_by_ranks(of_a_rank, sizes, folder, configs, dtype, steps, states)
    return alone, ranks, tolerances


@pytest.mark.parametrize("name", KINDS)
def test_processes_learn_what_one_does(kinds, name):
    compare(kinds, name, min(SIZES))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_processes_learn_what_one_does_over_many_steps(every_row, name, size):
    compare(every_row, name, size)


def same_batches(slices, drawn):
    """Slices of all ranks, put together, are the batches of one process."""
    assert drawn
    assert all(
        torch.equal(torch.cat(parts, -1), whole)
        for *parts, whole in zip(*slices, drawn, strict=True)
    )


def same_metrics(measured, metrics, tolerance):
    assert measured.keys() == metrics.keys()
    for metric, value in metrics.items():
        torch.testing.assert_close(
            measured[metric], value, rtol=0, atol=tolerance, equal_nan=True, msg=metric
        )


def compare(results, name, size):
    alone, ranks, (tolerance, of_metrics) = results
    state, drawn, metrics = alone[name]
    same_batches([rank[name][1] for rank in ranks[size]], drawn)
    for rank in ranks[size]:
        learned, _, measured = rank[name]
        assert learned.keys() == state.keys()
        for role, value in state.items():
            torch.testing.assert_close(learned[role], value, rtol=0, atol=tolerance, msg=role)
            # the ranks never part, as all apply the same summed gradient
            assert torch.equal(learned[role], ranks[size][0][name][0][role])
        same_metrics(measured, metrics, of_metrics)


SMALL = [
    "estimator=upo_dr",
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator.stages.propensity.epochs=1",
    "estimator.stages.propensity.steps=3",
    "estimator.stages.game.epochs=2",
    "estimator.stages.game.steps=3",
    "estimator.stages.debias.epochs=2",
    "progress=false",
    "trainer.accelerator=cpu",
]


def launch(launcher, folder, *overrides):
    """Launch the run; returns its row, its output and what each process wrote."""
    done = subprocess.run(
        [*launcher, "tests/launched.py", *SMALL, *overrides, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "LAUNCHED_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return rows(folder / "results.csv"), done.stdout, wrote_by(folder)


def wrote_by(folder):
    """Rank -> names of what it wrote."""
    return {
        rank: {Path(line).name for line in lines.read_text().splitlines()}
        for rank in (0, 1)
        if (lines := folder.parent / f"{folder.name}-rank{rank}.txt").exists()
    }


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    watched = {"LAUNCHED_FOLDER": str(folder)}
    done = command("tests/launched.py", *SMALL, f"hydra.run.dir={folder}", env=watched)
    assert done.returncode == 0, done.stderr
    return rows(folder / "results.csv"), wrote_by(folder)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([sys.executable], id="lightning"),
        # a whole run under torchrun equals one of Lightning bit for bit in test_resume.py
        pytest.param(TORCHRUN, id="torchrun", marks=pytest.mark.slow),
    ],
)
def test_a_launcher_gives_the_files_and_figures_of_one_process(tmp_path, one, launcher):
    expected, wrote_alone = one
    found, output, wrote = launch(launcher, tmp_path / "run", "trainer.devices=2")
    assert output.count("Results will land in") == 1
    assert len(found) == len(expected) == 1
    for name, value in expected[0].items():
        if name != "train_seconds":
            # float32 sums in another order, over 20 steps at most; of two scores that are nearly
            # equal another may then be the larger: each such pair moves the AUC by some 4e-6
            bound = 2e-5 if name == "auc" else 1e-6
            assert found[0][name] == value or float(found[0][name]) == pytest.approx(
                float(value), abs=bound
            )
    assert wrote[0] >= {"results.csv", "summary.json", "debias.pt"}
    assert {name for name in wrote[0] if not name.startswith(".")} >= {
        name for name in wrote_alone[0] if not name.startswith(".")
    }
    # Hydra's own notes of each process it starts in, and nothing of the run
    assert not wrote.get(1)


@pytest.mark.slow
def test_a_grid_goes_to_other_processes_through_joblib(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "train.py", "-m", "hydra/launcher=joblib"),
            *("hydra.launcher.n_jobs=2", "estimator=naive,ips", f"hydra.sweep.dir={tmp_path}"),
            *("hydra.sweep.subdir=${hydra.job.num}", "figures=false"),
            *(o for o in SMALL if not o.startswith(("estimator=", "estimator.stages"))),
            "estimator.stages.debias.epochs=1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [rows(tmp_path / job / "results.csv") for job in ("0", "1")]
    assert [row[0]["estimator"] for row in found] == ["naive", "ips"]
