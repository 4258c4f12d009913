"""Cells of D held out from a propensity: which they are, what they measure, what they choose."""

from types import SimpleNamespace

import pytest
import torch
from small_runs import build, composed, fit
from worlds import make_estimator, make_space

from upo.core import shards
from upo.core.sampling import EpochStream, Permutation
from upo.data.semisynthetic_world import TrainCells
from upo.errors import InputError
from upo.evaluation import held_cells
from upo.evaluation.held_cells import HeldCells
from upo.pairs import BatchSampler, PairSpace
from upo.training.callbacks import ReplicaSelection
from upo.training.propensity import PropensityModule
from upo.training.stage import StagePlan

SEEDS = (0, 1, 2)


def split(space):
    """Training and held-out cells of each replica, listed."""
    both = torch.arange(space.n_train_cells).expand(space.replicas, -1)
    return space.train_cells(both), space.held_cells(0, space.n_held_cells)


def test_cells_are_split_into_training_and_held_out_ones():
    space = make_space(SEEDS)
    train, held = split(space)
    assert space.n_held_cells == round(0.1 * space.n_pairs)
    together = torch.cat([train, held], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(space.n_pairs).expand(3, -1))
    assert not torch.equal(held[0].sort().values, held[1].sort().values)
    assert space.in_train_cells(train).all()
    assert not space.in_train_cells(held).any()


def test_cells_of_a_part_of_the_table_are_split_too():
    cells = TrainCells(12, 17, 0.5, seed=1)
    numbers = torch.arange(len(cells))
    keys = cells(numbers).sort().values[::3]
    space = PairSpace(keys, torch.arange(len(keys)) % 2, 12, 17, [0, 1], cells=cells)
    assert torch.equal(cells.number(cells(numbers)), numbers)
    train, held = split(space)
    assert space.in_train_cells(cells(train)).all()
    assert not space.in_train_cells(cells(held)).any()


@pytest.mark.parametrize("pair_batch", [10, 10_000])
def test_a_stage_that_holds_out_draws_every_training_cell_and_no_other(pair_batch):
    space = make_space(SEEDS)
    sampler = BatchSampler(space, "propensity", 0, pair_batch, hold_out=True)
    steps = -(-space.n_train_cells // sampler.pair_batch)
    batches = sampler.chunk(0, steps)
    keys = torch.cat([b.pairs.users * space.n_items + b.pairs.items for b in batches], dim=1)
    drawn = keys[:, : space.n_train_cells].sort(dim=1).values
    assert torch.equal(drawn, split(space)[0].sort(dim=1).values)
    assert sampler.whole == (pair_batch > 10)


def test_margins_count_training_cells_only():
    space = make_space(SEEDS)
    users, items = space.sizes.log.cells_by_id()
    train, _ = split(space)
    for r in range(3):
        kept = space.keys[torch.isin(space.keys, train[r])]
        assert torch.equal(users[r], torch.bincount(kept // 17, minlength=12))
        assert torch.equal(items[r], torch.bincount(kept % 17, minlength=17))


def by_hand(estimator):
    space = estimator.space
    pairs = space.pairs(split(space)[1], space.n_held_cells)
    p = estimator.propensity(pairs).detach().double()
    return -torch.where(pairs.observed, p.log(), (1 - p).log()).mean(-1)


def test_the_cross_entropy_is_that_of_all_held_out_cells():
    estimator = make_estimator(make_space(SEEDS))
    value = HeldCells(estimator.space).cross_entropy(estimator)
    torch.testing.assert_close(value, by_hand(estimator), rtol=1e-6, atol=0)  # float32 networks


def test_a_sample_stands_for_all_of_them(monkeypatch):
    space = make_space([0, 1], n_users=150, n_items=200, density=0.1)
    estimator = make_estimator(space)
    monkeypatch.setattr(held_cells, "MOST_CELLS", 2000)
    monkeypatch.setattr(held_cells, "MOST_ROWS", 2000)
    value = HeldCells(space).cross_entropy(estimator)
    # 200 of 300 observed and 1,800 of 2,700 others; 4 % is five standard errors
    torch.testing.assert_close(value, by_hand(estimator), rtol=0.04, atol=0)


def test_ranks_judge_their_shares(monkeypatch):
    estimator = make_estimator(make_space(SEEDS))
    whole = HeldCells(estimator.space).cross_entropy(estimator)
    parts = []
    monkeypatch.setattr(held_cells, "batch_sum", lambda x: parts.append(x.sum(-1)) or x.sum(-1))
    for me in range(3):
        monkeypatch.setattr(shards, "share", lambda n, me=me: (n * me // 3, n * (me + 1) // 3))
        HeldCells(estimator.space).cross_entropy(estimator)
    total = sum(parts)
    # float32 networks, on batches of other sizes
    torch.testing.assert_close(total[:, 0] / total[:, 1], whole, rtol=1e-6, atol=0)


def start(select=True, seeds=SEEDS):
    estimator = make_estimator(make_space(seeds))
    plan = StagePlan(epochs=9, pair_batch=20, select=select, patience=2)
    module = PropensityModule(estimator=estimator, learners={}, plan=plan, name="propensity")
    return module, ReplicaSelection(2)


def test_every_replica_keeps_the_epoch_of_the_least_cross_entropy(monkeypatch):
    """The start is an epoch, too: -1."""
    module, selection = start()
    values = torch.tensor([[2.0, 3.0, 1.0], [1.0, 2.0, 2.0], [3.0, 1.0, 3.0], [3.0, 4.0, 4.0]])
    told = iter(values)
    monkeypatch.setattr(HeldCells, "cross_entropy", lambda self, estimator: next(told))
    trainer = SimpleNamespace(should_stop=False)
    for epoch in range(-1, 3):
        for p in module.estimator.networks.parameters():
            p.data.fill_(float(epoch))
        module.first_epoch = max(0, epoch)
        if epoch < 0:
            selection.on_train_start(trainer, module)
        else:
            module.judge()
            selection.on_validation_end(trainer, module)
    assert selection.best_epoch.tolist() == values.argmin(0).sub(1).tolist() == [0, 1, -1]
    assert not trainer.should_stop  # replica 1 improved one epoch ago
    for name, kept in selection.snapshot.items():
        if name.endswith("head"):
            assert kept.flatten(1)[:, 0].tolist() == [0.0, 1.0, -1.0]


@pytest.mark.parametrize("select", [False, "last"])
def test_without_selection_the_last_epoch_stays(select):
    module, selection = start(select)
    selection.on_train_start(SimpleNamespace(), module)
    module.judge()
    selection.on_validation_end(SimpleNamespace(should_stop=False), module)
    assert selection.best is None
    assert ("propensity/val/cross_entropy" in module.epoch_logs) == (select == "last")


def test_a_short_run_restores_its_best_epoch():
    config = composed("ips", "++estimator.stages.propensity.select=true")
    estimator, modules = build(config, [0, 3])
    module = next(m for m in modules if m.stage == "propensity")
    selection = ReplicaSelection(0)
    fit(config, module, [selection])
    selection.restore(estimator.networks)
    estimator.stepped("propensity")
    value = HeldCells(estimator.space).cross_entropy(estimator)
    torch.testing.assert_close(value, selection.best, rtol=1e-9, atol=0)
    assert module.monitor == "cross_entropy"


def test_a_stage_of_the_prediction_refuses_the_choice():
    config = composed("naive", "++estimator.stages.debias.select=true")
    with pytest.raises(InputError, match=r"stages\.debias\.select"):
        build(config, [0])


def test_streams_over_a_part_are_permutations():
    stream = EpochStream(Permutation(103), torch.tensor([5]))
    assert torch.equal(stream.rows(0, 1, 0, 103, 103)[0, 0].sort().values, torch.arange(103))
