"""Where networks start: the rate of training labels, scales in 1 / sqrt(dim), a log's margins."""

import pytest
import torch
from worlds import make_log, make_space

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.margins import chance_pseudocounts
from upo.models.factorization import MatrixFactorization, NeuralCollaborativeFiltering
from upo.models.factorization_machine import FactorizationMachine
from upo.models.propensity import AdditivePropensity
from upo.pairs import PairSpace

SEEDS = (3, 0, 11)


def everyone(space):
    index = torch.arange(space.n_pairs).expand(space.replicas, -1)
    return index // space.n_items, index % space.n_items


def train_rates(space):
    """Share of positive labels of each replica's training rows, by listing them."""
    rows = space.train_rows(torch.arange(space.n_train).expand(space.replicas, -1))
    return space.labels[rows].double().mean(-1)


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_the_global_term_starts_at_the_logit_of_its_replicas_training_labels(holdout):
    space = make_space(SEEDS, holdout)
    rates = train_rates(space)
    assert len(rates.unique()) == (3 if holdout else 1)
    mf = MatrixFactorization(space.sizes, dim=4, init_std=0.0, biases=True, start="rate")
    fm = FactorizationMachine(space.sizes, dim=4, init_std=0.0)
    expected = torch.logit(rates).float()[:, None]
    for net in (mf, fm):
        logits = net(*everyone(space))
        torch.testing.assert_close(logits, expected.expand_as(logits))
    ncf = NeuralCollaborativeFiltering(space.sizes, dim=4, hidden=[3], init_std=0.0, start="rate")
    torch.testing.assert_close(ncf.layers[-1].bias[:, 0], expected)


def test_labels_of_one_kind_start_at_a_finite_logit():
    keys, labels = make_log()
    for value in (0.0, 1.0):
        space = PairSpace(keys, torch.full_like(labels, value), 12, 17, [0])
        net = MatrixFactorization(space.sizes, dim=2, biases=True, start="rate")
        assert float(net.bias.globe.detach()) == pytest.approx(9.21 if value else -9.21, abs=0.01)


def test_the_scale_is_in_units_of_one_over_the_root_of_the_size():
    sizes = Sizes(3000, 5, [0])
    for dim in (4, 64):
        for make in (MatrixFactorization, FactorizationMachine):
            rows = make(sizes, dim=dim, init_scale=0.3).user.weight.detach()
            # lengths of 3,000 vectors: the mean square is known to 1.3 % at dim 4
            assert float(rows.square().sum(-1).mean().sqrt()) == pytest.approx(0.3, rel=0.05)
    stack = (
        MatrixFactorization(Sizes(3000, 5, [0, 1]), dim=4, init_scale=[0.1, 1.0])
        .user.tables()
        .detach()
    )
    lengths = stack.square().sum(-1).mean(-1).sqrt()
    torch.testing.assert_close(lengths, torch.tensor([0.1, 1.0]), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda s: MatrixFactorization(s, dim=2, init_std=1.0, init_scale=1.0), "init_scale"),
        (lambda s: MatrixFactorization(s, dim=2, biases=True, start="mean"), "'mean'"),
        (lambda s: AdditivePropensity(s, dim=2, start="middle"), "'middle'"),
        (lambda s: AdditivePropensity(s, dim=1, start="margins"), "dim"),
        (lambda s: AdditivePropensity(s, dim=2, start="margins", smoothing=0.0), "smoothing"),
    ],
)
def test_wrong_starts_are_named(make, word):
    with pytest.raises(InputError, match=word):
        make(Sizes(4, 4, [0]))


def smoothed(counts, density, s):
    n = counts.double() + s[:, None]
    return density * n / n.mean(-1, keepdim=True)


@pytest.mark.parametrize("smoothing", [0.5, 3.0, None])
def test_margins_start_at_the_smoothed_shares_of_training_cells(smoothing):
    space = make_space(SEEDS, n_users=30, n_items=40, density=0.2)
    net = AdditivePropensity(space.sizes, dim=4, start="margins", smoothing=smoothing)
    p = torch.sigmoid(net(*everyone(space)).double()).view(3, 30, 40)
    for axis, counts in zip((2, 1), space.sizes.log.cells_by_id(), strict=True):
        given = torch.full((3,), smoothing or 0.0, dtype=torch.float64)
        s = chance_pseudocounts(counts, space.density) if smoothing is None else given
        # float32 parameters
        torch.testing.assert_close(
            p.mean(axis), smoothed(counts, space.density, s), rtol=1e-5, atol=0
        )


def test_terms_of_a_sparse_log_are_logarithms_of_relative_margins():
    """(n + s) / (mean + s), as propensities are small and act as factors."""
    space = make_space([0], n_users=300, n_items=400, density=0.004)
    net = AdditivePropensity(space.sizes, dim=4, start="margins", smoothing=2.0)
    users, _ = space.sizes.log.cells_by_id()
    expected = torch.log((users + 2.0) / (users.double().mean() + 2.0))
    found = net.terms.user.tables().detach()[..., 0]
    difference = found - expected.float()
    assert float((difference - difference.mean()).abs().max()) < 0.03  # 1 - p is not quite 1


def test_a_stack_with_margins_is_its_seeds():
    stack = make_space(SEEDS, n_users=30, n_items=40)
    whole = AdditivePropensity(stack.sizes, dim=4, start="margins")
    for r, seed in enumerate(SEEDS):
        alone = make_space([seed], n_users=30, n_items=40)
        net = AdditivePropensity(alone.sizes, dim=4, start="margins")
        for key, p in whole.named_parameters():
            own = dict(net.named_parameters())[key]
            assert torch.equal(p.reshape(3, -1)[r], own.reshape(-1)), key


@pytest.mark.parametrize("batch", [5, 90])  # 90: more pairs than users and items
def test_features_hold_the_terms_and_the_logit_is_linear_in_them(batch):
    space = make_space(SEEDS)
    net = AdditivePropensity(space.sizes, dim=4, start="margins")
    net.head.data.normal_(generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    users = torch.randint(0, 12, (3, batch), generator=g)
    items = torch.randint(0, 17, (3, batch), generator=g)
    features = net.features(users, items)
    assert features.shape == (3, batch, 8)
    one = torch.ones(3, 1, 1)
    weights = torch.cat([one, net.head[:, :3], one, net.head[:, 3:]], dim=1)
    expected = (features @ weights).squeeze(-1) + net.intercept
    torch.testing.assert_close(net(users, items), expected)
