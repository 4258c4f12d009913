"""A captured step is the recorded one. There is no GPU here: capturing is played on the CPU."""

from copy import deepcopy

import pytest
import torch
from test_replay import BY_ROWS, EACH, ONE, assert_same, make_module, run
from torch.fx.experimental.proxy_tensor import make_fx
from worlds import parameters

from upo.training import graphed, recording
from upo.training.recording import LEAST_CAPTURED, LEAST_STEPS, Recording, recording_pays


@pytest.fixture
def launches(monkeypatch):
    """Plays a device: what is captured leaves no trace, and computes at each launch."""
    taken = []
    real = graphed.DeviceGraph.__init__

    def capturing(self, step, state, changing):
        def captured(function):
            before = [x.clone() for x in state]
            result = function()
            for x, old in zip(state, before, strict=True):
                x.detach().copy_(old)

            def replay():
                taken.append(1)
                result.copy_(function())

            result.fill_(torch.nan)
            return replay, result

        monkeypatch.setattr(graphed, "_captured", captured)
        with torch.no_grad():
            real(self, step, state, changing)

    monkeypatch.setattr(graphed.DeviceGraph, "__init__", capturing)
    monkeypatch.setattr(recording, "can_capture", lambda device: True)
    return taken


@pytest.mark.parametrize("values", [ONE, EACH, *BY_ROWS.values()])
def test_launched_steps_equal_steps(values, launches):
    captured, plain = make_module(True, **values), make_module(False, **values)
    assert_same(run(captured), run(plain))
    assert len(launches) > 20


def test_state_that_moved_is_captured_anew(launches):
    captured, plain = make_module(True), make_module(False)
    for module in (captured, plain):
        run(module, 1)
        for learner in module.learners.values():  # makes new moments
            learner.optimizer.load_state_dict(deepcopy(learner.optimizer.state_dict()))
    before = captured._recording.device_graph
    for module in (captured, plain):
        module.first_epoch = 1
        module.on_train_epoch_start()
        module.training_step((0, 12), 0)
    assert captured._recording.device_graph is not before
    assert_same([parameters(captured)], [parameters(plain)])


def test_where_steps_are_captured_fewer_pay_to_record():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert recording_pays(LEAST_CAPTURED, gpu, captured=True)
    assert not recording_pays(LEAST_CAPTURED - 1, gpu, captured=True)
    assert not recording_pays(LEAST_STEPS - 1, gpu, captured=False)
    assert not recording_pays(LEAST_STEPS - 1, cpu, captured=True)
    assert recording_pays(LEAST_STEPS, cpu, captured=True)


def test_compile_false_captures_nothing(launches):
    module = make_module(True)
    module.compiled = False
    run(module, 1)
    assert type(module._recording) is Recording
    assert not launches


def test_what_cannot_be_captured_is_replayed_and_said(monkeypatch):
    def refused(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphed, "_captured", refused)
    monkeypatch.setattr(recording, "can_capture", lambda device: True)
    module, plain = make_module(True), make_module(False)
    with pytest.warns(UserWarning, match="one launch after another: operation not permitted"):
        found = run(module)
    assert_same(found, run(plain))


def test_numbers_in_host_memory_are_put_on_the_device_once():
    rate = torch.tensor([2.0, 3.0], dtype=torch.float64)

    def step(x):
        return x * rate.to("meta")[:, None] + rate.to(x, non_blocking=True)[:, None]

    graph = make_fx(step)(torch.ones(2, 3, device="meta"))
    assert graph.code.count("aten._to_copy") == 2
    graphed.hold_constants(graph)
    assert graph.code.count("aten._to_copy") == 0
    assert graph(torch.ones(2, 3, device="meta")).dtype == torch.float64
