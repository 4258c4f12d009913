"""Factorisation machines: the sum over all pairs of fields, without features, for unseen ids."""

import pytest
import torch
from worlds import N_ITEMS, N_USERS, make_log

from upo.core.layers import Sizes
from upo.models.factorization import MatrixFactorization
from upo.models.factorization_machine import FactorizationMachine, scaled_columns
from upo.pairs import PairSpace

SEEDS = [3, 0, 11]
R, DIM, EXTRA = 3, 4, 2


def tables(extra=EXTRA):
    g = torch.Generator().manual_seed(2)
    users = torch.randn(N_USERS + extra, 3, generator=g) * 5 + 1
    return users, torch.bernoulli(torch.full((N_ITEMS, 4), 0.4), generator=g)


def make_space(seeds=SEEDS, features=None, holdout=0.0, without=()):
    """The log of the other tests, without the rows of some users."""
    keys, labels = make_log()
    keep = ~torch.isin(keys // N_ITEMS, torch.tensor(without, dtype=torch.int64))
    both = tables() if features is None else features
    return PairSpace(keys[keep], labels[keep], N_USERS, N_ITEMS, seeds, holdout, features=both)


def rough(net, seed=0):
    g = torch.Generator().manual_seed(seed)
    for _, p in sorted(net.named_parameters()):
        p.data = torch.randn(p.shape, generator=g)
    return net


def draw(batch, users=N_USERS):
    g = torch.Generator().manual_seed(batch)
    return torch.randint(0, users, (R, batch), generator=g), torch.randint(
        0, N_ITEMS, (R, batch), generator=g
    )


def double_loop(net, r, user, item):
    """Rendle's eq. (1): every pair of fields, one at a time."""
    fields = []
    if user < N_USERS and net.known_user.view(R, -1)[r, user]:
        fields.append((1.0, net.bias.user.tables()[r, user, 0], net.user.tables()[r, user]))
    if net.known_item.view(R, -1)[r, item]:
        fields.append((1.0, net.bias.item.tables()[r, item, 0], net.item.tables()[r, item]))
    for columns, index in ((net.user_columns, user), (net.item_columns, item)):
        for c, x in enumerate(columns.table[index].tolist()):
            fields.append((x, columns.linear[r, c, 0], columns.factors[r, c]))
    total = net.bias.globe[r, 0] + sum(x * w for x, w, _ in fields)
    for j, (x, _, v) in enumerate(fields):
        for y, _, w in fields[j + 1 :]:
            total = total + x * y * (v @ w)
    return total


@pytest.mark.parametrize("batch", [6, 40])  # fewer and more pairs than users and items
def test_the_sum_over_fields_is_that_over_all_their_pairs(batch):
    net = rough(FactorizationMachine(make_space(without=(4,)).sizes, dim=DIM))
    users, items = draw(batch, N_USERS + EXTRA)
    assert users.max() >= N_USERS
    logits = net(users, items)
    for r in range(R):
        for b in range(batch):
            expected = double_loop(net, r, int(users[r, b]), int(items[r, b]))
            # float32 sums of about 45 products of order 1
            torch.testing.assert_close(logits[r, b], expected, rtol=1e-4, atol=1e-4)


def test_without_features_it_is_matrix_factorisation():
    sizes = make_space(features=(None, None)).sizes
    both = [
        FactorizationMachine(sizes, dim=DIM, init_scale=0.5, purpose="x"),
        MatrixFactorization(sizes, dim=DIM, init_scale=0.5, biases=True, start="rate", purpose="x"),
    ]
    users, items = draw(30)
    assert torch.equal(both[0](users, items), both[1](users, items))
    assert both[0].n_users == N_USERS
    bare = FactorizationMachine(Sizes(N_USERS, N_ITEMS, SEEDS), dim=DIM)
    assert bare(users, items).shape == (R, 30)


def test_an_id_without_training_rows_contributes_nothing_and_learns_nothing():
    space = make_space(without=(4,))
    net = rough(FactorizationMachine(space.sizes, dim=DIM))
    users, items = torch.full((R, 5), 4), torch.arange(5).expand(R, -1)
    before = net(users, items)
    grads = torch.autograd.grad(before.sum(), [net.user.weight, net.bias.user.weight])
    assert not any(g.any() for g in grads)
    for table in (net.user, net.bias.user):
        table.tables().data[:, 4] += 100
    assert torch.equal(net(users, items), before)
    # as somebody of the same features whom D does not have
    twin = tables()
    twin[0][N_USERS] = twin[0][4]
    other = rough(FactorizationMachine(make_space(features=twin, without=(4,)).sizes, dim=DIM))
    torch.testing.assert_close(other(users + N_USERS - 4, items), other(users, items))


def test_a_replica_knows_the_ids_of_its_own_training_rows():
    space = make_space(holdout=0.6)
    net = FactorizationMachine(space.sizes, dim=DIM)
    rows = space.train_rows(torch.arange(space.n_train).expand(R, -1))
    for r in range(R):
        seen = torch.zeros(N_USERS, dtype=torch.bool)
        seen[space.keys[rows[r]] // N_ITEMS] = True
        assert torch.equal(net.known_user.view(R, -1)[r], seen)


def test_a_replica_is_its_seed_alone():
    users, items = draw(30, N_USERS + EXTRA)
    stack = FactorizationMachine(make_space(holdout=0.3).sizes, dim=DIM, init_scale=1.0)
    logits, features = stack(users, items), stack.features(users, items)
    assert features.shape == (R, 30, 2 * DIM)
    for r, seed in enumerate(SEEDS):
        alone = FactorizationMachine(make_space([seed], holdout=0.3).sizes, dim=DIM, init_scale=1.0)
        own = users[r : r + 1], items[r : r + 1]
        torch.testing.assert_close(logits[r], alone(*own)[0])
        torch.testing.assert_close(features[r], alone.features(*own)[0])


def test_numbers_are_standardised_over_logged_rows_and_flags_are_not():
    g = torch.Generator().manual_seed(0)
    number = torch.randn(50, 1, generator=g) * 3 + 7
    flag = torch.bernoulli(torch.full((50, 1), 0.3), generator=g)
    constant = torch.full((50, 1), 4.0)
    logged = torch.arange(40) < 30
    x = scaled_columns(torch.cat([number, flag, constant], dim=1), logged)
    seen = x[:30]
    assert float(seen.square().sum(-1).mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(seen[:, 0].mean()) == pytest.approx(0.0, abs=1e-6)
    assert len(x[:, 1].unique()) == 2
    assert (x[flag[:, 0] == 0, 1] == 0).all()
    assert not x[:, 2].any()
