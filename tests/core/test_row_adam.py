"""Steps on looked-up rows are SparseAdam's, by either path, and leave every other row alone."""

import pytest
import torch

from upo.core import lookups
from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import batch_of, collecting
from upo.core.row_adam import RowAdam
from upo.errors import InputError

N, K, STEPS = 40, 3, 30
TINY = 1e-16  # SparseAdam adds it before the bias correction, Adam after
EXACT = {"rtol": 0, "atol": 1e-12}  # float64, sums of a few rows in another order


@pytest.fixture(params=["rows", "table"])
def path(request, monkeypatch):
    """Rows gathered and scattered, or the whole table read: of the same tables and batches."""
    monkeypatch.setattr(lookups, "ROWS_PER_LOOKUP", {"rows": 0, "table": 10**6}[request.param])
    return request.param


def make_table(replicas):
    return ReplicaEmbedding(N, K, seeds=list(range(replicas)), std=1.0, purpose="t")


def batches(replicas):
    """Two lookups a step, with rows that are looked up several times in one and in both."""
    g = torch.Generator().manual_seed(3)
    draw = [torch.randint(N // 2, (replicas, size), generator=g) for size in (5, 4) * STEPS]
    return list(zip(draw[::2], draw[1::2], strict=True))


def loss(first, second):  # [..., B, K] x 2
    return (first.cos() * second[..., :1, :]).sum((-1, -2)) + (second**3).sum((-1, -2))


def step(optimizer, table, head, first, second):
    sums = {id(table.weight): table.gradient(by_rows=True)}
    with collecting(sums):
        with batch_of(5):
            a = table(first)
        with batch_of(4):
            b = table(second)
        value = (loss(a, b) + (head * a.sum(1)).sum(-1)).sum()
        _, of_head = torch.autograd.grad(value, [table.weight, head], allow_unused=True)
        optimizer.update([sums[id(table.weight)], of_head])


def train(replicas, **settings):
    table = make_table(replicas)
    head = torch.nn.Parameter(torch.zeros(replicas, K))
    optimizer = RowAdam([table.weight, head], replicas=replicas, **settings)
    for first, second in batches(replicas):
        step(optimizer, table, head, first, second)
    return table, head, optimizer


@pytest.mark.parametrize("lr", [0.05, [0.05, 0.01]], ids=["rate", "rates"])
def test_it_is_torchs_sparse_adam_for_every_replica(lr, path, float64):
    table, head, _ = train(2, lr=lr, betas=(0.8, 0.95), eps=TINY)
    for r in range(2):
        weight = torch.nn.Parameter(make_table(2).tables()[r].detach().clone())
        own = torch.nn.Parameter(torch.zeros(K))
        settings = {"lr": lr[r] if isinstance(lr, list) else lr, "betas": (0.8, 0.95), "eps": TINY}
        sparse = torch.optim.SparseAdam([weight], **settings)
        dense = torch.optim.Adam([own], **settings)
        for first, second in batches(2):
            a, b = (
                torch.nn.functional.embedding(index[r], weight, sparse=True)
                for index in (first, second)
            )
            for optimizer in (sparse, dense):
                optimizer.zero_grad()
            (loss(a, b) + (own * a.sum(0)).sum()).backward()
            sparse.step()
            dense.step()
        # rates of several replicas are kept in float32
        near = EXACT if isinstance(lr, float) else {"rtol": 0, "atol": 1e-7}
        torch.testing.assert_close(table.tables()[r], weight, **near)
        torch.testing.assert_close(head[r], own, **near)


def test_rows_that_are_not_looked_up_stand_still_bit_for_bit(path):
    start = make_table(2).tables().detach().clone()
    table, _, optimizer = train(2, lr=0.05)
    seen = torch.zeros(2, N, dtype=torch.bool)
    for pair in batches(2):
        for index in pair:
            seen.scatter_(1, index, True)
    moved = (table.tables() != start).any(-1)
    assert torch.equal(moved, seen)
    for name in ("exp_avg", "exp_avg_sq"):
        moment = optimizer.state[table.weight][name].view(2, N, K)
        assert not moment[~seen].any()
        assert moment[seen].any(-1).all()


def test_between_steps_the_kept_sum_is_zero(path):
    table, _, _ = train(1)
    assert not table.gradient(by_rows=True).total.any()


def test_a_failed_step_leaves_nothing_behind(path):
    table, other = make_table(1), make_table(1)
    first, second = batches(1)[0]
    for broken in (True, False):
        heads = [torch.nn.Parameter(torch.zeros(1, K)) for _ in range(2)]
        for t, head, fails in ((table, heads[0], broken), (other, heads[1], False)):
            optimizer = RowAdam([t.weight, head], lr=0.1)
            if fails:
                optimizer.update = lambda _: 1 / 0
                with pytest.raises(ZeroDivisionError):
                    step(optimizer, t, head, first, second)
            elif not broken:
                step(optimizer, t, head, first, second)
    assert torch.equal(table.weight, other.weight)


@pytest.mark.parametrize("whole", ["known", "unknown"])
def test_a_table_that_is_read_whole(whole, float64):
    """With the rows that are looked up in it, those move; without, every row does."""
    index = torch.tensor([[1, 4, 4], [7, 2, 7]])
    tables = [make_table(2), make_table(2)]
    optimizers = [RowAdam([t.weight], replicas=2, lr=0.1) for t in tables]
    for _ in range(3):
        for table, optimizer in zip(tables, optimizers, strict=True):
            sums = {id(table.weight): table.gradient(by_rows=True)}
            with collecting(sums):
                if table is tables[0]:
                    rows = table.tables(index if whole == "known" else None)
                    found = rows.gather(1, index[..., None].expand(-1, -1, K))
                else:
                    found = table(index)
                (g,) = torch.autograd.grad((found**2).sum(), [table.weight], allow_unused=True)
                if g is not None:
                    sums[id(table.weight)].add_dense(g)
                optimizer.update(list(sums.values()))
    torch.testing.assert_close(tables[0].weight, tables[1].weight, **EXACT)
    steps = [o.state[t.weight] for t, o in zip(tables, optimizers, strict=True)]
    assert float(steps[0]["step"]) == 3
    torch.testing.assert_close(steps[0]["exp_avg"], steps[1]["exp_avg"], **EXACT)


def test_a_use_that_is_no_lookup_moves_every_row():
    table = make_table(1)
    optimizer = RowAdam([table.weight], lr=0.1)
    start = table.weight.detach().clone()
    uses = (lambda p: p.sum(), lambda p: (p[:3] ** 2).sum())
    for use in uses:
        sums = {id(table.weight): table.gradient(by_rows=True)}
        with collecting(sums):
            sums[id(table.weight)].add_dense(
                torch.autograd.grad(use(table.weight), table.weight)[0]
            )
            optimizer.update(list(sums.values()))
    plain = torch.nn.Parameter(start.clone())
    dense = torch.optim.Adam([plain], lr=0.1)
    for use in uses:
        dense.zero_grad()
        use(plain).backward()
        dense.step()
    torch.testing.assert_close(table.weight, plain, rtol=0, atol=1e-6)  # float32


def test_a_table_without_a_gradient_stays():
    table = make_table(1)
    optimizer = RowAdam([table.weight], lr=0.1)
    start = table.weight.detach().clone()
    sums = {id(table.weight): table.gradient(by_rows=True)}
    with collecting(sums):
        optimizer.update(list(sums.values()))
    assert torch.equal(table.weight, start)
    assert not optimizer.state[table.weight]["exp_avg"].any()


def test_which_path_depends_on_sizes_alone():
    table = make_table(2)
    gradient = table.gradient(by_rows=True)
    for size, expected in ((N // 3, True), (N // 3 + 1, False)):
        gradient.lookups = [lookups.Lookup(torch.zeros(2, 1, dtype=torch.int64), size)]
        assert gradient.row_wise is expected
    assert not table.gradient(by_rows=False).row_wise


def test_decay_is_for_other_parameters():
    table, head, _ = train(1, lr=0.05, weight_decay=10.0)
    plain, other, _ = train(1, lr=0.05)
    untouched = slice(N // 2, None)
    assert torch.equal(table.weight[untouched], plain.weight[untouched])
    assert not torch.equal(head, other)
    with pytest.raises(InputError, match="weight_decay"):
        RowAdam([head], weight_decay=-1.0)
