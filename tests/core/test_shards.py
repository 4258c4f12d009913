"""Tables that are spread over processes: initial rows, lookups and steps are those of one."""

import pytest
import torch
from processes import found_by_ranks
from worlds import PATHS, after_steps, make_estimator, make_space, replica

from upo.core.layers import ReplicaEmbedding
from upo.core.sampling import normal_rows, stream_key
from upo.core.shards import Shard, sharded
from upo.errors import InputError
from upo.training.stack import diverged

SIZES = (2, 3)
SEEDS = [0, 1, 2]
STEPS = 5
PENALTY = {"rows": [0.05, 0.0, 0.2], "biases": 0.1}
RATES = [0.02, 0.01, 0.05]
CASES = [
    ("rows", "few", "by rows", "one"),
    ("rows", "many", "by rows", "own"),
    ("table", "few", "by rows", "own"),
    ("by size", "many", "by rows", "one"),
    ("by size", "few", "dense", "own"),
]


def parts(shard, n=10):
    """This process's lookups in a table, as asked: some rows several times, some by none."""
    with sharded(shard):
        table = ReplicaEmbedding(n, 3, seeds=[4, 7], std=1.0, purpose="table")
    g = torch.Generator().manual_seed(shard.number)
    index = torch.randint(0, n, (2, 5 * shard.number), generator=g)  # the first asks for none
    return index, table(index).detach(), table.weight.detach(), table.range


def lost(shard):
    """What a process knows of replicas that diverged, one of them in a row of the last process."""
    with sharded(shard):
        estimator = make_estimator(make_space(SEEDS))
        table = estimator.networks["prediction"].item
        if shard.number == shard.of - 1:
            table.weight.data[-1, 0] = torch.nan  # of the last replica
        return diverged(estimator)


def train(shard, path, batches, kind, rates, *, seeds=SEEDS, penalty=PENALTY):
    """What is after some steps with this process's part of the tables."""
    rate = RATES if rates == "own" else 0.03
    with sharded(shard):
        return after_steps(seeds, path, batches, kind, rate, penalty, STEPS)


def of_a_rank(rank, size):
    shard = Shard(rank, size)
    return parts(shard), [train(shard, *case) for case in CASES], lost(shard)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return found_by_ranks(of_a_rank, SIZES, tmp_path_factory.mktemp("gloo"))


def whole(parts, value):
    """A tensor of all ranks' parts, replica by replica, if it is spread; the first's if not."""
    replicas = len(SEEDS)
    if parts[0].shape == value.shape:
        assert all(torch.equal(part, parts[0]) for part in parts)
        return parts[0]
    each = [part.view(replicas, -1, *part.shape[1:]) for part in parts]
    return torch.cat(each, dim=1).view_as(value)


def test_a_row_is_a_hash_of_seed_table_and_row():
    key = stream_key(torch.tensor([3, 8]), "rows", "table")
    rows = normal_rows(key, 0, 4000, 5)
    assert torch.equal(normal_rows(key, 17, 100, 5), rows[:, 17:100])
    assert torch.equal(normal_rows(key[1:], 0, 4000, 5), rows[1:])
    # 20,000 draws a replica: mean and deviation within five standard errors
    assert rows.mean((1, 2)).abs().max() < 5 / 20000**0.5
    assert (rows.std((1, 2)) - 1).abs().max() < 5 / 40000**0.5
    # of two columns, two rows or two tables that have nothing to do with each other
    other = normal_rows(stream_key(torch.tensor([3, 8]), "rows", "other"), 0, 4000, 5)
    for x, y in ((rows[..., 0], rows[..., 1]), (rows[:, 1:], rows[:, :-1]), (rows, other)):
        assert (x * y).mean().abs() < 5 / x.numel() ** 0.5


def test_initial_tables_have_the_deviation_of_each_replica():
    with sharded(Shard(0, 1)):
        table = ReplicaEmbedding(2000, 4, seeds=[0, 1], std=[0.5, 0.0], purpose="x")
    first, second = table.weight.detach().view(2, -1)
    assert abs(float(first.std()) - 0.5) < 5 * 0.5 / 16000**0.5
    assert not second.any()


@pytest.mark.parametrize("size", SIZES)
def test_lookups_find_the_rows_of_one_table(ranks, size):
    with sharded(Shard(0, 1)):
        table = ReplicaEmbedding(10, 3, seeds=[4, 7], std=1.0, purpose="table")
    for index, found, weight, (lo, hi) in (rank[0] for rank in ranks[size]):
        assert torch.equal(found, table(index))
        assert torch.equal(weight.view(2, hi - lo, 3), table.tables()[:, lo:hi])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_processes_learn_what_one_does(ranks, size, case):
    found = [rank[1][CASES.index(case)] for rank in ranks[size]]
    alone = train(Shard(0, 1), *case)
    spread = 0
    for name, value in alone.items():
        together = whole([part[name] for part in found], value)
        spread += found[0][name].shape != value.shape
        # float64: another order of summation is left, over five steps of Adam
        torch.testing.assert_close(together, value, rtol=0, atol=1e-11, msg=name)
    assert spread == 18  # six tables, and two moments of each


@pytest.mark.parametrize("size", SIZES)
def test_every_process_knows_what_diverged_on_one(ranks, size):
    for rank in ranks[size]:
        assert rank[2].tolist() == [False, False, True]


@pytest.mark.parametrize("path", PATHS)
def test_a_replica_equals_its_seed_alone(path):
    stack = train(Shard(0, 1), path, "few", "by rows", "one")
    for r, seed in enumerate(SEEDS):
        penalty = PENALTY | {"rows": PENALTY["rows"][r]}
        alone = train(Shard(0, 1), path, "few", "by rows", "one", seeds=[seed], penalty=penalty)
        for name, value in alone.items():
            if value.numel() > 1 or not name.endswith("step"):
                torch.testing.assert_close(
                    replica(stack[name], r, 3), value.flatten(), rtol=0, atol=2e-6, msg=name
                )


def test_a_table_without_a_row_for_each_process_is_refused():
    with sharded(Shard(0, 4)), pytest.raises(InputError, match="3 rows for 4 processes"):
        ReplicaEmbedding(3, 2, seeds=[0], std=1.0, purpose="x")


def test_whole_tables_are_not_to_be_had_of_parts():
    with sharded(Shard(1, 2)):
        table = ReplicaEmbedding(10, 2, seeds=[0], std=1.0, purpose="x")
    with pytest.raises(InputError, match="tables=replicated"):
        table.tables()
