"""What the repository's configurations build can be recorded, and is then the same bit for bit."""

from functools import partial

import pytest
import torch
from rows import NAMES
from small_runs import build, composed

from upo.learners.imputation import ImputationLearner
from upo.learners.propensity import PropensityLearner

# Stages that run step by step: parameters are moved within a step, a number is kept in Python, or
# an anchor is chosen by it.
STEPWISE = {row: {"debias"} for row in ("autodebias", "dce_dr", "dce_tdr")} | {
    row: {"propensity", "refine", "representation", "debias"}
    for row in ("kbips", "kbdr", "akbips", "akbdr", "wkb_ips", "wkb_dr")
}
FAST = (
    "naive",
    "snips",
    "upo_ips",
    "dr_jl",
    "upo_dr",
    "mr",
    "tdr_jl",
    "dce_dr",
    "dr_v2",
    "dr_gpl",
    "upo_dr scaled",
)
ALL = {row: (row,) for row in NAMES} | {
    "upo_dr scaled": ("upo_dr", "propensity=upo_scaled"),
    "upo_dr errors": ("upo_dr", "propensity=upo_errors"),
    "metrics": ("dr_jl", "propensity=multi_metric"),
    "twins": ("dr_jl", "propensity=twins"),
    "machine": ("dr_jl", "backbone=fm"),
    "by rows": ("upo_dr", "backbone=mf", "fit=relative"),
}


def after_steps(config, replay):
    """Parameters after steps of two epochs, and the stages that were not recorded."""
    estimator, modules = build(config, [0, 3])
    stepwise = set()
    for module in modules:
        module.replay = replay
        module.on_fit_start()
        for module.first_epoch in (0, 1):
            module.on_train_epoch_start()
            module.training_step((0, 4), 0)
        if module._recording is None:
            stepwise.add(module.stage)
    return {name: x.detach().clone() for name, x in estimator.state_dict().items()}, stepwise


@pytest.mark.parametrize(
    "row", [row if row in FAST else pytest.param(row, marks=pytest.mark.slow) for row in ALL]
)
def test_stages_of_shipped_rows_are_recorded(row):
    config = composed(*ALL[row])
    (recorded, stepwise), (plain, every) = after_steps(config, True), after_steps(config, False)
    for name, x in plain.items():
        assert torch.equal(recorded[name], x), name
    assert stepwise == STEPWISE.get(row, set())
    assert stepwise <= every


class OwnLearner(PropensityLearner):
    """A learner that is not of ``upo.learners``."""


def test_functions_are_called_without_a_guard_around_them():
    """Hydra's own partial checks its target's policy at every call, 0.15 ms."""
    config = composed("upo_dr")
    config.estimator.learners.game._target_ = f"{__name__}.OwnLearner"
    _, modules = build(config, [0])
    learners = [x for module in modules for x in module.learners.values()]
    functions = [x.loss for x in learners if isinstance(x, PropensityLearner)]
    functions += [x.omega for x in learners if isinstance(x, ImputationLearner)]
    assert [type(x) for x in learners].count(OwnLearner) == 1
    assert len(functions) == 3
    assert {type(function) for function in functions} == {partial}
