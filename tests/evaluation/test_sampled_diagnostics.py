"""Diagnostics of a D that is too large to visit: a sample with its standard errors."""

import pytest
import torch
from small_estimators import configure

from upo.evaluation import populations
from upo.evaluation.diagnostics import Diagnostics
from upo.evaluation.mar import MarSet
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.experiment import Experiment


@pytest.fixture(scope="module")
def untrained():
    config = configure("dr_jl", "seeds=2", "dataset.n_users=60", "dataset.n_items=50")
    experiment = Experiment(config, progress=False)
    data = experiment.datamodule.data
    space = PairSpace.of(experiment.datamodule.data, experiment.seeds, 0.1)
    return data, MarSet(data, 5), build_estimator(config.estimator, space).eval()


def measured(untrained, monkeypatch, exact_pairs, sample):
    data, mar, estimator = untrained
    monkeypatch.setattr(populations, "EXACT_PAIRS", exact_pairs)
    monkeypatch.setattr(populations, "SAMPLE_PAIRS", sample)
    return Diagnostics(data, mar).measure(estimator).values


def test_a_visited_d_has_no_standard_error(untrained, monkeypatch):
    assert not any(name.endswith("_error") for name in measured(untrained, monkeypatch, 3000, 500))


def test_a_sampled_d_is_within_its_standard_errors(untrained, monkeypatch):
    exact = measured(untrained, monkeypatch, 3000, 500)
    sampled = measured(untrained, monkeypatch, 10, 1000)
    for name in ("ece", "bmse", "dr_bias", "dr_variance"):
        error = sampled[f"{name}_error"]
        assert (error > 0).all()
        # four standard errors: a fixed draw of 1,000 of 3,000 pairs
        assert ((sampled[name] - exact[name]).abs() < 4 * error).all(), name


def test_a_sample_of_everything_is_exact(untrained, monkeypatch):
    whole = measured(untrained, monkeypatch, 10, 3000)
    exact = measured(untrained, monkeypatch, 3000, 500)
    for name in ("ece", "bmse", "dr_bias", "dr_variance"):
        torch.testing.assert_close(whole[name], exact[name], rtol=1e-6, atol=1e-9)
        # what rounding leaves of a variance of 0
        assert (whole[f"{name}_error"] < 1e-6).all()


def test_a_seed_of_a_stack_is_measured_on_the_pairs_that_it_is_alone(monkeypatch):
    monkeypatch.setattr(populations, "EXACT_PAIRS", 10)
    monkeypatch.setattr(populations, "SAMPLE_PAIRS", 500)
    found = []
    for seeds in ("[3,7]", "[7]"):
        words = f"seeds={seeds}", "dataset.n_users=60", "dataset.n_items=50"
        config = configure("dr_jl", *words)
        experiment = Experiment(config, progress=False)
        data = experiment.datamodule.data
        space = PairSpace.of(data, experiment.seeds, 0.1)
        estimator = build_estimator(config.estimator, space).eval()
        values = Diagnostics(data, MarSet(data, 5)).measure(estimator).values
        found.append({name: value[-1:] for name, value in values.items()})
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-9, atol=0, msg=name)
