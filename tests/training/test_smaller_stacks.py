"""Replicas that stop or diverge leave their stack; the others end as if nothing had happened."""

import pytest
import torch
from rows import NAMES, each

from upo.evaluation.mar import MarSet
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage, part_of
from upo.runs.compose import choices, composed
from upo.runs.experiment import Experiment
from upo.training.stack import DivergenceError, diverged, part_of_state, rows_of
from upo.training.stage import StageModule

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
WORLD = [
    "logger=none",
    "progress=false",
    "figures=false",
    "dataset=synthetic",
    "dataset.n_users=40",
    "dataset.n_items=32",  # the kernels' last elements are few in no stack
    "dataset.density=0.2",
    "trainer.accelerator=cpu",
]
SHORT = [
    "estimator.stages.propensity.epochs=2",
    "estimator.stages.propensity.steps=2",
    "estimator.stages.debias.observed_batch=32",
]


def run(*overrides, estimator="dr_jl"):
    config = composed([*WORLD, f"estimator={estimator}", *SHORT, *overrides])
    return Experiment(config, progress=False).run()


def whole(monkeypatch):
    monkeypatch.setattr(StageModule, "smaller_pays", lambda *_: False)


def replica_epochs(result):
    """Replicas whose loss was noted, in all epochs of the last stage."""
    logs = next(iter(result.stages[-1].history.logs.values()))
    return int((~torch.stack(list(logs)).isnan()).sum())


def assert_same(a, b, replicas):
    assert a.metrics.keys() == b.metrics.keys()
    for name in a.metrics:
        x, y = a.metrics[name][replicas], b.metrics[name][replicas]
        assert torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)), name


PATIENT = ["seeds=5", "estimator.stages.debias.epochs=30", "estimator.stages.debias.patience=2"]


def test_replicas_that_have_stopped_are_computed_no_longer(monkeypatch):
    """Each at a rate of its own, so that they stop at other epochs; the results are the same."""
    # parameters of 16 elements a replica, or of one: the kernels round all of them alike
    own = [
        *PATIENT,
        "estimator.networks.propensity.dim=8",
        "estimator.learners.prediction.optimizer.lr=[.1,.05,.02,.01,.005]",
    ]
    smaller = run(*own)
    whole(monkeypatch)
    full = run(*own)
    assert replica_epochs(smaller) < replica_epochs(full)
    assert len(smaller.stages[-1].history.epochs) == len(full.stages[-1].history.epochs)
    assert torch.equal(smaller.stages[-1].best_epoch, full.stages[-1].best_epoch)
    assert_same(smaller, full, list(range(5)))
    for name, value in full.estimator.networks.state_dict().items():
        assert torch.equal(smaller.estimator.networks.state_dict()[name], value), name


DIVERGING = ["seeds=4", "estimator.stages.debias.epochs=3"]


@pytest.mark.parametrize(
    ("learner", "stage"), [("prediction", "debias"), ("propensity", "propensity")]
)
def test_a_replica_that_diverges_costs_only_itself(learner, stage):
    key = f"estimator.learners.{learner}.optimizer.lr"
    hurt, healthy = (run(*DIVERGING, f"{key}=[.011,.012,{r},.014]") for r in ("1e30", ".013"))
    assert list(hurt.failures) == [2]
    assert f"in stage '{stage}'" in hurt.failures[2]
    assert "of replica 2 (seed 2)" in hurt.failures[2]
    assert not healthy.failures
    assert all(value[2].isnan() for value in hurt.metrics.values())
    assert_same(hurt, healthy, [0, 1, 3])
    assert hurt.estimator.space.seeds.tolist() == [0, 1, 3]
    assert hurt.stages[-1].best[2].isnan()


def test_a_run_stops_only_if_every_replica_diverges():
    with pytest.raises(DivergenceError, match="and so did all 2 replicas"):
        run("seeds=2", "estimator.learners.prediction.optimizer.lr=1e30")


def test_a_replica_that_stopped_before_it_diverged_has_not_failed():
    config = composed([*WORLD, "estimator=naive", "seeds=2"])
    experiment = Experiment(config, progress=False)
    data = experiment.datamodule.data
    experiment.protocol.use(MarSet(data, 5))
    space = PairSpace.of(data, [0, 1], 0.1)
    estimator = build_estimator(config.estimator, space)
    module = build_stage("debias", config.estimator, estimator, experiment.protocol)
    module.stopped = {1}
    with torch.no_grad():
        for p in estimator.parameters():
            p.view(2, -1)[1] = torch.inf
    assert diverged(estimator).tolist() == [False, True]
    module._lose(diverged(estimator), "after step 3")
    assert not module.failures
    assert not diverged(estimator).any()  # and can be computed with
    module.keep([0])
    assert module.members == [0]
    assert module.estimator.space.seeds.tolist() == [0]


@pytest.mark.parametrize("name", each())
def test_every_row_has_a_part_that_answers_as_its_replicas_do(name):
    """Whatever a row keeps of its replicas is replica-major, and all of it is handed over."""
    config = composed([*WORLD, f"estimator={name}"])
    experiment = Experiment(config, seeds=[5, 3, 8], progress=False)
    space = PairSpace.of(experiment.datamodule.data, [5, 3, 8], 0.1)
    estimator = build_estimator(config.estimator, space)
    with torch.no_grad():
        for p in estimator.parameters():
            p.add_(torch.rand(p.shape, generator=torch.Generator().manual_seed(1)))
    part = part_of(estimator, config.estimator, [0, 2])
    expected = part_of_state(estimator.state_dict(), [0, 2], 3)
    assert part.state_dict().keys() == expected.keys()
    for key, value in part.state_dict().items():
        assert torch.equal(value, expected[key]), key
    index = torch.arange(64)[None]
    whole = space.pairs(index.expand(3, -1), 64)
    some = part.space.pairs(index.expand(2, -1), 64)
    with torch.no_grad():
        mine, theirs = (
            e.logit("prediction", pairs) for e, pairs in ((part, some), (estimator, whole))
        )
        assert torch.equal(mine, theirs[[0, 2]])
        if estimator.has_propensity:
            assert torch.equal(part.propensity(some), estimator.propensity(whole)[[0, 2]])


def test_rows_of_a_table_are_those_of_its_replicas():
    table = torch.arange(12.0).view(6, 2)  # three replicas of two rows
    assert rows_of(table, [2, 0], 3).tolist() == [[8, 9], [10, 11], [0, 1], [2, 3]]
    assert choices("estimator") == NAMES
