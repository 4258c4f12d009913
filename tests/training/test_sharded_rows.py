"""Estimators with tables spread over two and three processes learn what one process does."""

import pytest
import torch
from processes import found_by_ranks
from rows import NAMES
from test_processes import Run, configure, of_one, same_batches, same_metrics

from upo.core.shards import Shard, sharded
from upo.errors import InputError
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled
from upo.training.tables import check_spread

SIZES = (2, 3)
# as in test_processes: tables do not start so small that Adam makes steps of rounding
START = ["estimator.networks.prediction.init_std=0.5", "estimator.networks.prediction.dim=8"]
BY_ROWS = ["backbone=mf", "fit=relative", "estimator.networks.prediction.init_scale=null", *START]
RUNS = {  # name -> estimator, overrides
    "naive": ("naive", BY_ROWS),
    "ips": ("ips", BY_ROWS),
    "upo_dr": ("upo_dr", [*BY_ROWS, "estimator.networks.propensity.init_std=0.5"]),
    "dense": ("ips", []),
    "fm": ("naive", ["backbone=fm", *START, "estimator.networks.prediction.init_scale=null"]),
}
REFUSED = {"autodebias", "kbdr", "kbips", "akbdr", "akbips", "wkb_dr", "wkb_ips"}
REFUSED |= {"umvue_dr", "user_item_dr"}
FEW = ("naive", "ips", "upo_dr")


def refused(config):
    """What is said of an estimator before anything is trained."""
    run = Run(config, torch.float32)
    stages = [
        build_stage(name, run.config, run.estimator, run.protocol) for name in scheduled(run.config)
    ]
    try:
        check_spread(run.estimator, stages)
    except InputError as error:
        return str(error)
    return None


def of_a_rank(rank, size, configs, dtype, steps, states):
    """As in test_processes, and which tables are spread."""
    states, found, shard = torch.load(states), {}, Shard(rank, size)
    with sharded(shard):
        for name, config in configs.items():
            run = Run(config, dtype)
            state = run.train(steps)
            tables = spread_in(run.estimator)
            parts = {
                key: own(value, tables[key], shard) if key in tables else value
                for key, value in states[name].items()
            }
            found[name] = state, run.drawn, run.measure(parts), tables
    return found


def spread_in(estimator):
    """Rows of the whole of each table that is spread, by name."""
    from upo.core.layers import ReplicaEmbedding

    return {
        f"{name}.weight": module.n
        for name, module in estimator.networks.named_modules()
        if isinstance(module, ReplicaEmbedding)
    }


def own(value, n, shard):
    """A process's part of a whole table of two replicas."""
    lo, hi = shard.rows(n)
    return value.view(2, n, -1)[:, lo:hi].reshape(2 * (hi - lo), -1)


def found_by(configs, dtype, steps, folder):
    with sharded(Shard(0, 1)):
        alone, states = of_one(configs, dtype, steps, folder)
    return alone, found_by_ranks(of_a_rank, SIZES, folder, configs, dtype, steps, states)


def configs_of(names):
    return {
        name: configure(of, overrides) for name, (of, overrides) in RUNS.items() if name in names
    }


@pytest.fixture(scope="module")
def few_steps(tmp_path_factory):
    """What one process and the ranks of two and of three find after some steps in float32."""
    return found_by(configs_of(FEW), torch.float32, 6, tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The same after 100 steps of every stage."""
    return found_by(configs_of(RUNS), torch.float32, 100, tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="module")
def every_row(tmp_path_factory):
    """The same of a few steps in float64, of every estimator that is not refused."""
    configs = {name: configure(name) for name in NAMES if name not in REFUSED}
    return found_by(configs, torch.float64, 8, tmp_path_factory.mktemp("gloo"))


def compare(results, name, size, tolerance, of_metrics):
    alone, ranks = results
    state, drawn, metrics = alone[name]
    same_batches([rank[name][1] for rank in ranks[size]], drawn)
    tables = ranks[size][0][name][3]
    assert tables
    for role, value in state.items():
        parts = [rank[name][0][role] for rank in ranks[size]]
        if role in tables:
            together = torch.cat([part.view(2, -1, value.shape[1]) for part in parts], dim=1)
            parts = [together.view_as(value)]
        for part in parts:
            torch.testing.assert_close(part, value, rtol=0, atol=tolerance, msg=role)
    for rank in ranks[size]:
        same_metrics(rank[name][2], metrics, of_metrics)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FEW)
def test_a_few_steps_are_those_of_one_process(few_steps, name, size):
    compare(few_steps, name, size, 1e-5, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RUNS)
def test_processes_learn_what_one_does(results, name, size):
    # float32, carried through the steps of every stage. Metrics of the same parameters: where a row
    # stands among those of a lookup decides how its product is rounded
    compare(results, name, size, 1e-5, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_every_row_learns_what_one_process_does(every_row, name, size):
    compare(every_row, name, size, 1e-11, 1e-9)  # float64: another order of summation


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in {"kbips", "upo_dr"} else pytest.mark.slow)
        for name in NAMES
    ],
)
def test_what_needs_whole_tables_says_so_before_training(name):
    said = refused(configure(name))
    assert (said is not None) == (name in REFUSED), said
    if said is not None:
        assert "use trainer.tables=replicated" in said


def test_the_start_does_not_depend_on_the_number_of_processes():
    config = configure("upo_dr")
    run = Run(config, torch.float32)
    space = PairSpace.of(run.data, [0, 5], run.protocol.holdout)
    with sharded(Shard(0, 1)):
        whole = build_estimator(config.estimator, space)
    tables = spread_in(whole)
    for number in range(3):
        shard = Shard(number, 3)
        with sharded(shard):
            part = build_estimator(config.estimator, space).networks.state_dict()
        for name, value in whole.networks.state_dict().items():
            expected = own(value, tables[name], shard) if name in tables else value
            assert torch.equal(part[name], expected), name
