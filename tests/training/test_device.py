"""Every estimator trains and is measured where it is told to, and its host waits for no step.

There is no GPU here: the device is the pretended one of ``pretend_device``.
"""

from collections import Counter

import pytest
import torch
from omegaconf import open_dict
from pretend_device import DEVICE, MixedDevicesError, Pretend, offer
from rows import each

from upo.core.sampling import Permutation
from upo.errors import InputError
from upo.evaluation.diagnostics import Diagnostics
from upo.evaluation.mar import MarSet
from upo.runs.compose import composed
from upo.runs.config import scheduled
from upo.runs.experiment import Experiment
from upo.training.checkpoint import StageCheckpoint
from upo.training.compiled import CompiledStep
from upo.training.settings import check_trainer
from upo.training.stage import StageModule
from upo.training.trainer import _say_why

SMALL = [
    "dataset.n_users=30",
    "dataset.n_items=20",
    "dataset.density=0.3",
    "seeds=2",
    "progress=false",
    "figures=false",
    "logger=none",
]
pytestmark = pytest.mark.filterwarnings("ignore:GPU available but not used")  # Lightning's


def configured(estimator, *overrides, accelerator="mps", epochs=1, steps=2):
    """A run of few steps in every stage."""
    words = [*SMALL, f"estimator={estimator}", f"trainer.accelerator={accelerator}", *overrides]
    config = composed(words)
    with open_dict(config):
        for stage in scheduled(config.estimator):
            config.estimator.stages[stage].update(epochs=epochs, steps=steps)
    return config


@pytest.fixture
def device(monkeypatch):
    offer(monkeypatch)
    with Pretend() as device:
        yield device


@pytest.fixture
def waits(device, monkeypatch):
    """Where the host waited within each chunk of steps."""
    found, train = [], StageModule.training_step

    def step(self, chunk, number):
        before = Counter(device.waits)
        train(self, chunk, number)
        found.append(Counter(device.waits) - before)

    monkeypatch.setattr(StageModule, "training_step", step)
    return found


@pytest.fixture
def measured(monkeypatch):
    """Devices on which estimators were measured."""
    places = []
    measures = {MarSet: MarSet.measure, Diagnostics: Diagnostics.measure}
    for kind, measure in measures.items():

        def noting(self, estimator, *rest, measure=measure):
            places.extend(x.device for x in (*estimator.parameters(), *estimator.buffers()))
            return measure(self, estimator, *rest)

        monkeypatch.setattr(kind, "measure", noting)
    return places


@pytest.mark.parametrize("estimator", each())
def test_a_row_stays_on_its_device_and_waits_once_a_chunk(estimator, waits, measured):
    result = Experiment(configured(estimator), progress=False).run()
    assert set(measured) == {DEVICE}
    assert max(sum(chunk.values()) for chunk in waits) == 1, waits
    # what is handed on is for the CPU again
    kept = [*result.estimator.parameters(), *result.estimator.buffers(), *result.metrics.values()]
    assert {x.device.type for x in kept} == {"cpu"}


@pytest.mark.parametrize("kind", ["isotonic", "gbdt"])
def test_a_calibrated_propensity_stays_on_its_device(kind, waits, measured):
    words = [f"propensity.calibrate={kind}", "propensity.folds=2"]
    results = [
        Experiment(configured("ips", *words, accelerator=a), progress=False).run()
        for a in ("mps", "cpu")
    ]
    assert DEVICE in measured
    assert max(sum(chunk.values()) for chunk in waits) == 1, waits
    found, expected = (result.out_of_fold for result in results)
    assert torch.equal(found.others, expected.others)
    torch.testing.assert_close(found.propensity, expected.propensity, rtol=1e-6, atol=1e-7)
    for name, value in results[1].metrics.items():
        torch.testing.assert_close(results[0].metrics[name], value, equal_nan=True)


class KilledError(Exception):
    """The run ended here."""


@pytest.mark.parametrize(
    ("estimator", "writes"),
    [
        ("upo_dr", 2),
        pytest.param("kbips", 4, marks=pytest.mark.slow),
        pytest.param("dr_v2", 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_resumed_on_the_device_from_the_middle_of_a_stage(
    estimator, writes, device, monkeypatch, tmp_path
):
    config = configured(estimator, epochs=3)
    whole = Experiment(config, tmp_path / "whole", progress=False).run()
    left = writes

    def write(self, *args, **kwargs):
        nonlocal left
        real(self, *args, **kwargs)
        left -= 1
        if left == 0:
            raise KilledError

    real = StageCheckpoint.write
    with monkeypatch.context() as patch:
        patch.setattr(StageCheckpoint, "write", write)
        with pytest.raises(KilledError):
            Experiment(config, tmp_path / "part", progress=False).run()
    config.resume = str(tmp_path / "part")
    resumed = Experiment(config, tmp_path / "part", progress=False).run()
    for name, value in whole.metrics.items():
        assert torch.equal(resumed.metrics[name].nan_to_num(), value.nan_to_num()), name


def test_rates_of_several_replicas_do_not_wait(waits):
    """A stack of trials: every hyperparameter differs between the replicas."""
    learner = "estimator.learners.{}.optimizer".format
    words = [f"{learner('prediction')}.lr=[0.01,0.02]", f"{learner('propensity')}.lr=[0.01,0.03]"]
    words += ["estimator.weighting.p_min=[0.1,0.2]"]
    Experiment(configured("upo_dr", *words), progress=False).run()
    assert max(sum(chunk.values()) for chunk in waits) == 1, waits


PARTLY = [f"estimator.stages.{stage}.pair_batch=64" for stage in ("propensity", "debias")]
DECAYS = "++estimator.learners.prediction.optimizer.weight_decay=[0.1,0.2]"


def test_results_are_those_of_the_cpu(device):
    found, expected = (
        Experiment(configured("upo_dr", accelerator=a, steps=4), progress=False).run().metrics
        for a in ("mps", "cpu")
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.filterwarnings("ignore:compile=true")
def test_what_a_compiler_would_get_mixes_no_devices(device, monkeypatch):
    """With a decay of each replica; what the graph computes is another matter, and not asked."""
    traced = []
    monkeypatch.setattr(CompiledStep, "replay", lambda self, batches: [self.first] * len(batches))

    def compiled(graph, inputs):
        traced.append({x.device for x in inputs})
        return graph

    monkeypatch.setattr("upo.training.compiled._compiled", compiled)
    words = ["compile=true", "fit=fixed", *PARTLY, DECAYS]
    Experiment(configured("dr_jl", *words, steps=4), progress=False).run()
    assert traced
    assert set().union(*traced) == {DEVICE}


def test_a_device_without_float64_is_left_for_the_cpu_in_a_sentence(monkeypatch, capsys):
    offer(monkeypatch)
    _say_why.cache_clear()
    with Pretend(float64=False):
        Experiment(configured("naive"), progress=False).run()
        Experiment(configured("naive"), progress=False)
    said = capsys.readouterr().out
    assert said.count("has no float64, in which results are measured, so this runs on the CPU") == 1


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", "16"])
def test_precisions_that_would_lose_gradients_are_refused(precision):
    with pytest.raises(InputError, match="gradients, which float16 needs"):
        check_trainer({"precision": precision})


def test_walks_of_a_fixed_number_end_inside():
    """On a device a permutation asks no value whether it is done."""
    for size in (2, 3, 5, 11, 97, 228, 6264, 99_991):
        order, x = Permutation(size), torch.arange(size)
        expected = order(x, torch.tensor([7]))
        with Pretend():
            found = order(x.to(DEVICE), torch.tensor([7], device=DEVICE)).cpu()
        assert torch.equal(found, expected)


def test_the_pretended_device_refuses_to_mix():
    here, there = torch.ones(3), torch.ones(3)
    with Pretend() as device:
        there = there.to(DEVICE)
        assert (there * 2 + torch.tensor(1.0)).tolist() == [3.0] * 3
        assert sum(device.waits.values()) == 2  # to the device and back
        for mixing in (lambda: here + there, lambda: there[torch.tensor([0])]):
            with pytest.raises(MixedDevicesError):
                mixing()
        with pytest.raises(TypeError):
            there.numpy()
    with pytest.raises(MixedDevicesError, match="outside"):
        there + 1
