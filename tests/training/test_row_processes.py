"""Steps on looked-up rows on two and three processes are those of one, and of one replica alone."""

import pytest
import torch
from processes import found_by_ranks
from worlds import KINDS, PATHS, PLANS, after_steps, replica

SIZES = (2, 3)
SEEDS = (0, 1, 2)
STEPS = 8
PENALTY = {"rows": [0.05, 0.0, 0.2], "biases": 0.1}
RATES = [0.02, 0.01, 0.05]

CASES = [
    (path, batches, kind)
    for path in PATHS
    for batches in PLANS
    for kind in KINDS
    if kind == "by rows" or path == "by size"
]


def train(seeds, path, batches, kind, rates, penalty):
    return after_steps(seeds, path, batches, kind, rates, penalty, STEPS)


def of_a_rank(*_):
    return [train(SEEDS, *case, RATES, PENALTY) for case in CASES]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return found_by_ranks(of_a_rank, SIZES, tmp_path_factory.mktemp("gloo"))


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
