"""Steps on looked-up rows on two and three processes are those of one, and of one replica alone."""

from functools import partial

import pytest
import torch
from processes import together
from torch import distributed as dist
from worlds import by_rows, make_estimator, make_learners, make_space, replica

from upo.core import lookups
from upo.core.optim import ReplicaAdam
from upo.training.stage import StageModule, StagePlan

SIZES = (2, 3)
SEEDS = (0, 1, 2)
STEPS = 8
PENALTY = {"rows": [0.05, 0.0, 0.2], "biases": 0.1}
RATES = [0.02, 0.01, 0.05]
# batches that two or three ranks do not share evenly
PLANS = {"few": (3, 7), "many": (37, 101)}
PATHS = {"rows": 0, "table": 10**6, "by size": lookups.ROWS_PER_LOOKUP}
KINDS = {"by rows": by_rows, "dense": lambda lr: partial(ReplicaAdam, lr=lr)}


def train(seeds, path, batches, kind, rates, penalty):
    """Parameters and moments after some joint steps in float64."""
    lookups.ROWS_PER_LOOKUP = PATHS[path]
    space = make_space(seeds)
    estimator = make_estimator(space)
    estimator.networks.to(torch.float64)
    learners = make_learners(estimator, rates, make=KINDS[kind], penalty=penalty)
    observed, pairs = PLANS[batches]
    plan = StagePlan(epochs=1, observed_batch=observed, pair_batch=pairs)
    module = StageModule(estimator, learners, plan, "debias")
    for batch in module.sampler.chunk(0, STEPS):
        module._step(batch)
    lookups.ROWS_PER_LOOKUP = PATHS["by size"]
    found = dict(estimator.networks.state_dict())
    for name, learner in learners.items():
        for number, state in learner.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number} {key}": value for key, value in state.items()}
    return {key: value.detach().clone() for key, value in found.items()}


CASES = [
    (path, batches, kind)
    for path in PATHS
    for batches in PLANS
    for kind in KINDS
    if kind == "by rows" or path == "by size"
]


def work(rank, folder):
    torch.set_num_threads(1)
    for size in SIZES:
        if rank < size:
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/init{size}", rank=rank, world_size=size
            )
            found = [train(SEEDS, *case, RATES, PENALTY) for case in CASES]
            torch.save(found, f"{folder}/{size}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    together(work, max(SIZES), str(folder))
    return {n: [torch.load(folder / f"{n}-{r}.pt") for r in range(n)] for n in SIZES}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_processes_learn_what_one_does(ranks, size, case):
    alone = train(SEEDS, *case, RATES, PENALTY)
    found = [rank[CASES.index(case)] for rank in ranks[size]]
    for name, value in alone.items():
        # float64: another order of summation is left, over eight steps of Adam
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-11, msg=name)
        for other in found[1:]:  # the ranks never part
            assert torch.equal(other[name], found[0][name]), name


@pytest.mark.parametrize("batches", PLANS)
def test_both_paths_agree(batches):
    rows, table = (
        train(SEEDS, path, batches, "by rows", RATES, PENALTY) for path in ("rows", "table")
    )
    for name, value in rows.items():
        torch.testing.assert_close(table[name], value, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("path", PATHS)
def test_a_replica_equals_its_seed_alone(path):
    stack = train(SEEDS, path, "few", "by rows", RATES, PENALTY)
    for r, seed in enumerate(SEEDS):
        penalty = PENALTY | {"rows": PENALTY["rows"][r]}
        alone = train([seed], path, "few", "by rows", RATES[r], penalty)
        for name, value in alone.items():
            if value.numel() > 1 or not name.endswith("step"):
                # rates of several replicas are kept in float32
                torch.testing.assert_close(
                    replica(stack[name], r, 3), value.flatten(), rtol=0, atol=2e-6, msg=name
                )
