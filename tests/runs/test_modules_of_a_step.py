"""What a reader of a row has to open: the modules that run from a batch to its gradients."""

import sys

from hydra import compose, initialize_config_dir

import upo
from upo.runs.compose import conf_dir
from upo.runs.experiment import Experiment

HOUSE = upo.__path__[0]
OPTIMISERS = {"core/optim.py", "core/row_adam.py"}  # behind the gradients
MOST = 20


def modules_of(run):
    """Files of the package in which a function is called."""
    found = set()

    def called(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(HOUSE):
            found.add(path[len(HOUSE) + 1 :])

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def test_a_step_of_dr_jl_takes_twenty_modules():
    words = ["estimator=dr_jl", "trainer.accelerator=cpu", "logger=none"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", words)
    experiment = Experiment(config, None, progress=False)
    _, _, _, stages = experiment._prepared(0.1)
    stage = stages[0]

    def step(number):
        for batch in stage.sampler.chunk(number, 1):
            for learner in stage.learners.values():
                learner.update(batch)

    step(0)  # the first one also asks the log for its clip
    found = modules_of(lambda: step(1))
    assert found >= OPTIMISERS | {"learners/prediction.py", "models/weighting.py"}
    assert len(found - OPTIMISERS) <= MOST, sorted(found)
