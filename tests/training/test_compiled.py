"""A compiled step is the step up to rounding, and resumes bit for bit."""

from copy import deepcopy

import pytest
import torch
from test_replay import BY_ROWS, EACH, assert_same, make_module, run, take_path
from worlds import parameters

from upo.errors import InputError
from upo.runs.experiment import switch
from upo.training import compiled
from upo.training.compiled import (
    FEW_THREADS,
    LEAST_PAIRS,
    LEAST_STEPS,
    MOST_PARAMETERS,
    CompiledStep,
    CompilerError,
    compiling_pays,
)
from upo.training.recording import Recording

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not compiled.compiler_found(), reason="no C++ compiler, or a PyTorch before 2.8"
)


def make_compiled(**settings):
    module = make_module(None, **settings)
    module.compiled = True
    return module


@needs_compiler
@pytest.mark.parametrize("path", [pytest.param("dense", marks=pytest.mark.slow), "rows", "table"])
def test_compiled_steps_equal_steps_and_resume_bit_for_bit(path, monkeypatch):
    """Every replica with its own rates; one test, since compiling takes some seconds."""
    settings = EACH if path == "dense" else BY_ROWS["each"]
    if path != "dense":
        take_path(monkeypatch, path)
    module, plain = make_compiled(**settings), make_module(False, **settings)
    run(plain, 2)
    run(module, 1)
    killed = deepcopy(module.state_dict())
    moments = {name: deepcopy(x.optimizer.state_dict()) for name, x in module.learners.items()}
    continue_from(module, 1)
    assert isinstance(module._recording, CompiledStep)
    for name, p in parameters(plain).items():
        # float32: 24 steps of Adam at rates to 0.05, sums in another order
        torch.testing.assert_close(parameters(module)[name], p, rtol=0, atol=2e-5)
    for name, value in plain.epoch_logs.items():
        torch.testing.assert_close(module.epoch_logs[name], value, rtol=1e-4, atol=1e-5)
    for learner in module.learners.values():
        assert {float(s["step"]) for s in learner.optimizer.state.values()} == {24.0}

    resumed = make_compiled(**settings)
    resumed.load_state_dict(killed)
    for name, learner in resumed.learners.items():
        learner.optimizer.load_state_dict(moments[name])
    continue_from(resumed, 1)
    assert_same([parameters(resumed)], [parameters(module)])


def continue_from(module, epoch):
    module.first_epoch = epoch
    module.on_train_epoch_start()
    for chunk in ((0, 7), (7, 5)):
        module.training_step(chunk, 0)


def broken(*_, **__):
    raise RuntimeError("no such compiler\nand much more")


def test_without_a_working_compiler_steps_are_recorded(monkeypatch):
    monkeypatch.setattr("torch._inductor.standalone_compile", broken, raising=False)
    monkeypatch.setattr("upo.training.stage.compiling_pays", lambda *_: True)
    module, plain = make_module(None), make_module(False)
    plain.compiled = False
    with pytest.warns(UserWarning, match="uncompiled.*no such compiler"):
        ours = run(module)
    assert type(module._recording) is Recording
    assert_same(ours, run(plain))


def test_asked_for_without_a_working_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr("torch._inductor.standalone_compile", broken, raising=False)
    with pytest.raises(CompilerError, match=r"failed \(no such compiler\).*compile=false"):
        run(make_compiled())


def test_asked_for_where_steps_cannot_be_recorded_it_says_so_once():
    module = make_compiled(pair_batch=10**6)
    with pytest.warns(UserWarning, match="steps of 'debias' run one by one") as said:
        run(module)
    assert len(said) == 1


def test_it_is_compiled_where_that_pays(monkeypatch):
    monkeypatch.setattr(compiled, "compiler_found", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: FEW_THREADS + 1)
    few = MOST_PARAMETERS // (FEW_THREADS + 1)
    many = few + 1
    assert compiling_pays(LEAST_STEPS, 10, few, CPU)
    assert not compiling_pays(LEAST_STEPS, 10, many, CPU)
    assert compiling_pays(1000, -(-LEAST_PAIRS // 1000), few, CPU)
    assert not compiling_pays(1000, 1000, few, CPU)
    assert not compiling_pays(LEAST_STEPS, 10, few, torch.device("cuda"))
    assert compiling_pays(LEAST_STEPS, 10, few, CPU, taken=LEAST_STEPS // 2)
    assert not compiling_pays(LEAST_STEPS, 10, few, CPU, taken=LEAST_STEPS // 2 - 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: FEW_THREADS)
    assert compiling_pays(LEAST_STEPS, 10, many, CPU)
    monkeypatch.setattr(compiled, "compiler_found", lambda: False)
    assert not compiling_pays(LEAST_STEPS, 10, few, CPU)


def test_a_resumed_stage_decides_as_the_killed_one():
    """Another decision would end in other last bits."""
    steps = make_module(None).steps_per_epoch
    module = make_module(None, epochs=LEAST_STEPS // steps + 1)
    kinds = []
    for epoch in range(module.plan.epochs):
        module.first_epoch = epoch
        kinds.append(module._recorder())
    half = -(-LEAST_STEPS // (2 * steps))
    assert CompiledStep not in kinds[:half]
    assert set(kinds[half:]) == {CompiledStep} or not compiled.compiler_found()


def test_a_stage_goes_on_compiled_where_it_turns_out_long(monkeypatch):
    monkeypatch.setattr("upo.training.stage.compiling_pays", lambda *args: args[-1] > 0)
    module = make_module(None, epochs=100)
    continue_from(module, 0)
    assert not isinstance(module._recording, CompiledStep)
    continue_from(module, 1)
    assert isinstance(module._recording, CompiledStep) or not compiled.compiler_found()


def test_a_wrong_setting_ends_in_a_sentence():
    with pytest.raises(InputError, match="compile must be auto, true or false, got 'fast'"):
        switch("compile", "fast")
