"""A replayed step is the step: bit for bit, whatever happens between chunks."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from worlds import adam, by_rows, make_estimator, make_learners, make_space, parameters

from upo.core import distributed, lookups
from upo.core.optim import ReplicaAdam
from upo.errors import InputError
from upo.learners.propensity import PropensityLearner, UPOPenalty
from upo.training.recording import LEAST_STEPS, Recording, replayable
from upo.training.stage import StageModule, StagePlan
from upo.training.trainer import make_trainer

PLAN = {"epochs": 10, "observed_batch": 9, "pair_batch": 25, "steps": 12}


def make_module(
    replay, *, rule="equal_mass", lr=0.02, beta=1.0, p_min=0.1, make=adam, penalty=None, **plan
):
    estimator = make_estimator(make_space(holdout=0.2), rule=rule, p_min=p_min)
    learners = make_learners(estimator, lr, beta, make, penalty)
    module = StageModule(estimator, learners, StagePlan(**PLAN | plan), "debias")
    module.replay = replay
    return module


def run(module, epochs=3):
    """Parameters after some epochs of two uneven chunks, and what the last one logged."""
    for epoch in range(epochs):
        module.first_epoch = epoch
        module.on_train_epoch_start()
        for chunk in ((0, 7), (7, 5)):
            module.training_step(chunk, 0)
    return parameters(module), module.epoch_logs


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


ONE = {"lr": 0.02, "beta": 1.0, "p_min": 0.1}
EACH = {"lr": [0.02, 0.01, 0.05], "beta": [0.5, 1.0, 2.0], "p_min": [0.1, 0.2, 0.05]}


@pytest.mark.parametrize("rule", ["equal_width", "equal_mass", "adaptive"])
@pytest.mark.parametrize("values", [ONE, EACH], ids=["one", "each"])
def test_replayed_steps_equal_steps(rule, values):
    """Adaptive edges change, in size too, at the start of an epoch."""
    replayed = make_module(True, rule=rule, **values)
    plain = make_module(False, rule=rule, **values)
    start = parameters(replayed)
    assert_same(run(replayed), run(plain))
    assert replayed._recording is not None
    assert plain._recording is None
    moved = parameters(replayed)
    assert all(not torch.equal(moved[name], start[name]) for name in start)


BY_ROWS = {
    "one": ONE | {"make": by_rows, "penalty": {"rows": 0.01, "biases": 0.1}},
    "each": EACH | {"make": by_rows, "penalty": {"rows": [0.01, 0.0, 0.1]}},
}


def take_path(monkeypatch, path):
    """Make steps gather rows, or read whole tables, whatever the sizes are."""
    monkeypatch.setattr(lookups, "ROWS_PER_LOOKUP", {"rows": 0, "table": 10**6}[path])


@pytest.mark.parametrize("path", ["rows", "table"])
@pytest.mark.parametrize("values", BY_ROWS)
def test_replayed_steps_on_rows_equal_steps(values, path, monkeypatch):
    take_path(monkeypatch, path)
    replayed, plain = (make_module(replay, **BY_ROWS[values]) for replay in (True, False))
    assert_same(run(replayed), run(plain))
    assert type(replayed._recording) is Recording


@pytest.mark.parametrize("path", ["rows", "table"])
def test_a_resumed_recording_of_steps_on_rows_goes_on_bit_for_bit(path, monkeypatch):
    """It records before it took a step of its own."""
    take_path(monkeypatch, path)
    resumed, plain = (make_module(replay, **BY_ROWS["each"]) for replay in (True, False))
    run(plain, 1)
    resumed.load_state_dict(plain.state_dict())
    for name, learner in resumed.learners.items():
        learner.optimizer.load_state_dict(deepcopy(plain.learners[name].optimizer.state_dict()))
    for module in (resumed, plain):
        module.first_epoch = 1
        module.on_train_epoch_start()
        module.training_step((0, 12), 0)
    assert_same([parameters(resumed)], [parameters(plain)])


def test_what_batches_remember_is_stale_after_a_replay():
    module = make_module(True)
    pairs = module.sampler.chunk(0, 1)[0].pairs
    before = module.estimator.logit("prediction", pairs)
    module.training_step((0, 7), 0)
    module.training_step((7, 5), 0)
    assert not torch.equal(module.estimator.logit("prediction", pairs), before)


def test_loaded_parameters_and_moments_are_replayed_from():
    """A resumed run may load its state into a module that has recorded."""
    replayed, plain = make_module(True), make_module(False)
    run(replayed, 1)
    run(plain, 2)
    replayed.load_state_dict(plain.state_dict())
    for name, learner in replayed.learners.items():
        learner.optimizer.load_state_dict(deepcopy(plain.learners[name].optimizer.state_dict()))
    for module in (replayed, plain):
        module.first_epoch = 2
        module.training_step((0, 5), 0)
    assert_same([parameters(replayed)], [parameters(plain)])


def test_another_learning_rate_is_not_replayed_over():
    replayed, plain = make_module(True), make_module(False)
    for module in (replayed, plain):
        run(module, 1)
        module.learners["prediction"].optimizer.param_groups[0]["lr"] = 0.1
        module.first_epoch = 1
        module.training_step((0, 5), 0)
    assert_same([parameters(replayed)], [parameters(plain)])


class Counting(PropensityLearner):
    """Does something else in its third step."""

    seen = 0

    def update(self, batch):
        self.seen += 1
        return super().update(batch) if self.seen != 3 else {"loss": torch.zeros(3)}


class Tired(UPOPenalty):
    """A penalty that is not known to be the same in every step."""


@pytest.mark.parametrize("part", ["learner", "penalty", "optimizer", "network"])
def test_parts_that_are_not_known_are_never_recorded(part):
    module = make_module(True)
    learners, estimator = module.learners, module.estimator
    assert replayable(learners.values())
    propensity = learners["propensity"]
    if part == "learner":
        learners["propensity"] = Counting(
            estimator, optimizer=partial(ReplicaAdam), loss=propensity.loss
        )
    elif part == "penalty":
        propensity.penalties["upo"] = Tired()
    elif part == "optimizer":
        propensity.optimizer = torch.optim.SGD(propensity.params, lr=0.1)
    else:
        estimator.networks["prediction"] = torch.nn.Bilinear(2, 2, 1)
    assert not replayable(learners.values())


def test_nothing_is_recorded_across_processes(monkeypatch):
    module = make_module(True)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert not replayable(module.learners.values())


def test_steps_are_recorded_where_many_are_to_come():
    steps = PLAN["steps"]
    assert make_module(None)._recorder() is None
    long = make_module(None, epochs=-(-LEAST_STEPS // steps))
    assert long._recorder() is Recording
    long.first_epoch = 1
    assert long._recorder() is None


def test_a_batch_of_all_of_d_is_not_recorded():
    module = make_module(True, pair_batch=10**6)
    assert module._recorder() is None


def test_a_wrong_setting_ends_in_a_sentence():
    with pytest.raises(InputError, match=r"trainer\.replay must be auto, true or false"):
        make_trainer({"accelerator": "cpu", "devices": 1, "replay": "often"})
