import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import N_ITEMS, N_USERS, make_log, make_space

from upo.pairs import BatchSampler, PairSpace
from upo.pairs.bits import bit_set, contains

R = 3


def everyone(space):
    return space.pairs(torch.arange(space.n_pairs).expand(space.replicas, -1), space.n_pairs)


@given(
    cells=st.sets(st.integers(0, 6 * 9 - 1), min_size=1),
    queries=st.lists(st.integers(0, 6 * 9 - 1), min_size=1),
)
@settings(max_examples=60)
def test_find_equals_a_dictionary(cells, queries):
    keys = sorted(cells)
    row_of = {key: row for row, key in enumerate(keys)}
    space = PairSpace(torch.tensor(keys), torch.ones(len(keys)), 6, 9, [0])
    users, items = (
        torch.tensor([[q // 9 for q in queries]]),
        torch.tensor([[q % 9 for q in queries]]),
    )
    row, found = space.find(users, items)
    assert torch.equal(space.observed(users, items), found)
    assert found[0].tolist() == [q in row_of for q in queries]
    assert [r for r, f in zip(row[0].tolist(), found[0].tolist(), strict=True) if f] == [
        row_of[q] for q in queries if q in row_of
    ]


@given(
    cells=st.sets(st.integers(0, 999), min_size=1, max_size=40),
    queries=st.lists(st.integers(0, 999), min_size=1),
)
@settings(max_examples=60)
def test_bits_equal_a_set(cells, queries):
    bits = bit_set(torch.tensor(sorted(cells)), 1000)
    assert contains(bits, torch.tensor([queries]))[0].tolist() == [q in cells for q in queries]


@pytest.mark.parametrize(("n_users", "n_bytes"), [(64, 4800 // 8), (65, 0)])
def test_bits_take_no_more_memory_than_the_keys(n_users, n_bytes):
    """75 keys of 8 bytes; beyond 4,800 pairs whether one was observed is searched for."""
    keys = torch.arange(75) * 64
    space = PairSpace(keys, torch.ones(75), n_users, 75, [0])
    assert len(space.bits) == n_bytes
    everyone = torch.arange(n_users * 75)[None]
    seen = space.pairs(everyone, n_users * 75).observed
    assert everyone[seen].tolist() == keys.tolist()


@given(holdout=st.floats(0, 0.9), seed=st.integers(0, 2**31))
@settings(max_examples=40)
def test_the_split_partitions_the_log_for_each_replica(holdout, seed):
    space = make_space([seed, seed + 1], holdout)
    train = space.train_rows(torch.arange(space.n_train).expand(2, -1))
    held = space.held_rows(0, space.n_held)
    rows = torch.cat([train, held], -1).sort(-1).values
    assert torch.equal(rows, torch.arange(space.n_observed).expand(2, -1))
    assert space.in_train(train).all()
    assert not space.in_train(held).any()


def test_the_split_is_by_seed_and_the_same_alone_as_in_a_stack():
    space = make_space([4, 5, 6], 0.2)
    held = space.held_rows(0, space.n_held)
    assert len({tuple(h.sort().values.tolist()) for h in held}) == 3
    for r, seed in enumerate([4, 5, 6]):
        alone = make_space([seed], 0.2)
        assert torch.equal(alone.held_rows(0, alone.n_held)[0], held[r])


def test_held_rows_may_be_asked_for_in_slices():
    space = make_space(holdout=0.2)
    parts = [space.held_rows(0, 4), space.held_rows(4, 4), space.held_rows(4, space.n_held)]
    assert torch.equal(torch.cat(parts, -1), space.held_rows(0, space.n_held))


def test_in_train_takes_any_trailing_shape():
    space = make_space(holdout=0.2)
    rows = torch.arange(space.n_observed).expand(R, -1)
    shaped = rows[:, :20].reshape(R, 4, 5)
    assert torch.equal(space.in_train(shaped), space.in_train(rows)[:, :20].reshape(R, 4, 5))


def test_pairs_of_d_know_observation_and_hide_held_out_labels():
    """Every label is 1 here, so a 1 outside the training rows would be a leak."""
    keys, _ = make_log()
    space = PairSpace(keys, torch.ones(len(keys)), N_USERS, N_ITEMS, [0, 1, 2], 0.3)
    pairs = everyone(space)
    assert torch.equal(pairs.observed, torch.isin(torch.arange(space.n_pairs), keys).expand(R, -1))
    assert torch.equal(pairs.o, pairs.observed.float())
    assert (pairs.trainable <= pairs.observed).all()
    assert pairs.trainable.sum(-1).tolist() == [space.n_train] * R
    assert torch.equal(pairs.labels, pairs.trainable.float())
    held = space.keys[space.held_rows(0, space.n_held)]
    assert pairs.labels.gather(1, held).sum() == 0
    assert pairs.observed.gather(1, held).all()


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_batches_of_o_hold_training_rows_with_their_labels(holdout):
    space = make_space(holdout=holdout)
    sampler = BatchSampler(space, "debias", 8, 0)
    batches = [b for first in (0, 5) for b in sampler.chunk(first, 5)]
    label_of = dict(zip(space.keys.tolist(), space.labels.tolist(), strict=True))
    for batch in batches:
        rows = batch.rows
        keys = rows.users * N_ITEMS + rows.items
        assert rows.labels.flatten().tolist() == [label_of[k] for k in keys.flatten().tolist()]
        assert rows.trainable.all()
        assert rows.observed.all()
        assert (rows.o == 1).all()
        looked_up = space.pairs(keys, 8)
        assert looked_up.trainable.all()
        assert torch.equal(looked_up.labels, rows.labels)


def test_an_epoch_of_o_visits_each_training_row_once_and_no_other():
    space = make_space(holdout=0.25)
    sampler = BatchSampler(space, "debias", 1, 0)
    assert sampler.steps_per_epoch() == space.n_train
    epoch = sampler.chunk(0, space.n_train)
    keys = torch.stack([b.rows.users * N_ITEMS + b.rows.items for b in epoch], -1).flatten(1)
    train = space.keys[space.train_rows(torch.arange(space.n_train).expand(R, -1))]
    assert torch.equal(keys.sort(-1).values, train.sort(-1).values)


def test_batches_do_not_depend_on_the_chunk():
    space = make_space(holdout=0.2)
    whole = BatchSampler(space, "debias", 6, 20).chunk(3, 6)
    parts = [
        b for first in range(3, 9) for b in BatchSampler(space, "debias", 6, 20).chunk(first, 1)
    ]
    for a, b in zip(whole, parts, strict=True):
        for name in ("users", "items", "labels", "observed", "trainable"):
            assert torch.equal(getattr(a.rows, name), getattr(b.rows, name))
            assert torch.equal(getattr(a.pairs, name), getattr(b.pairs, name))


def test_a_batch_of_pairs_equals_a_lookup_of_the_same_pairs():
    space = make_space(holdout=0.2)
    for batch in BatchSampler(space, "game", 0, 30).chunk(0, 3):
        again = space.pairs(batch.pairs.users * N_ITEMS + batch.pairs.items, 30)
        for name in ("observed", "trainable", "labels"):
            assert torch.equal(getattr(batch.pairs, name), getattr(again, name))


def test_stages_draw_different_batches():
    space = make_space([0])
    users = {
        tuple(BatchSampler(space, stage, 0, 40).chunk(0, 1)[0].pairs.users[0].tolist())
        for stage in ("propensity", "game", "debias", "propensity_2")
    }
    assert len(users) == 4


@pytest.mark.parametrize("asked", [N_USERS * N_ITEMS, 10**9])
def test_a_batch_as_large_as_d_is_all_of_d_in_every_step(asked):
    space = make_space(holdout=0.2)
    sampler = BatchSampler(space, "game", 0, asked)
    assert sampler.steps_per_epoch() == 1
    first, second = sampler.chunk(0, 2)
    index = torch.arange(space.n_pairs).expand(R, -1)
    assert torch.equal(first.pairs.users * N_ITEMS + first.pairs.items, index)
    assert first.pairs is second.pairs
    assert first.pairs.total == space.n_pairs


def test_the_full_batch_forgets_its_memo_at_the_next_chunk():
    sampler = BatchSampler(make_space(), "game", 0, 10**9)
    pairs = sampler.chunk(0, 1)[0].pairs
    pairs.memo["propensity", "logit"] = (0, False, torch.zeros(1))
    assert not sampler.chunk(1, 1)[0].pairs.memo


@pytest.mark.parametrize("size", [5, 10**6])
def test_batches_of_o_are_capped_at_the_training_rows(size):
    space = make_space(holdout=0.2)
    sampler = BatchSampler(space, "debias", size, 0)
    batch = sampler.chunk(0, 1)[0].rows
    assert batch.users.shape == (R, min(size, space.n_train))
    assert batch.total == min(size, space.n_train)
    assert sampler.steps_per_epoch() == max(1, space.n_train // size)


def test_absent_parts_of_a_batch_are_named():
    space = make_space()
    only_d, only_o = BatchSampler(space, "a", 0, 4), BatchSampler(space, "a", 4, 0)
    with pytest.raises(ValueError, match="observed_batch"):
        _ = only_d.chunk(0, 1)[0].rows
    with pytest.raises(ValueError, match="pair_batch"):
        _ = only_o.chunk(0, 1)[0].pairs


@pytest.mark.parametrize("key", [0, 5, 11])
def test_a_log_of_one_row(key):
    space = PairSpace(torch.tensor([key]), torch.tensor([1.0]), 3, 4, [0, 1], 0.1)
    assert (space.n_observed, space.n_held, space.n_train) == (1, 0, 1)
    assert space.density == 1 / 12
    pairs = everyone(space)
    assert torch.equal(pairs.labels, (torch.arange(12) == key).float().expand(2, -1))
    batch = BatchSampler(space, "debias", 128, 5).chunk(0, 3)[2]
    assert (batch.rows.users * 4 + batch.rows.items).tolist() == [[key], [key]]
    assert batch.pairs.users.shape == (2, 5)
    assert space.held_rows(0, 0).shape == (2, 0)


class EveryThird:
    """A part of D for tests: the keys that 3 divides, from the last to the first."""

    def __len__(self):
        return N_USERS * N_ITEMS // 3

    def __call__(self, positions):
        return N_USERS * N_ITEMS - 3 - 3 * positions


def test_batches_of_d_lie_in_its_cells():
    assert len(EveryThird()) % N_ITEMS == 0
    keys = torch.arange(0, N_USERS * N_ITEMS, 6)
    space = PairSpace(keys, torch.ones(len(keys)), N_USERS, N_ITEMS, [0, 1], cells=EveryThird())
    assert (space.n_pairs, space.density) == (68, len(keys) / 68)
    inside = torch.arange(0, N_USERS * N_ITEMS, 3)
    for size in (17, 68):  # parts of D, and all of it at once
        sampler = BatchSampler(space, "stage", 0, size)
        batches = [batch.pairs for batch in sampler.chunk(0, 68 // size)]
        drawn = torch.cat([d.users * N_ITEMS + d.items for d in batches], dim=1)
        assert torch.equal(drawn.sort(dim=1).values, inside.expand(2, -1))
        seen = torch.cat([d.observed for d in batches], dim=1)
        assert torch.equal(seen, torch.isin(drawn, keys))
    outside = space.pairs_at(torch.tensor([[1, 6]]).expand(2, -1), 2)
    assert outside.observed.tolist() == [[False, True]] * 2
