"""What is particular to each network."""

import math

import pytest
import torch

from upo.core.layers import Sizes, normal
from upo.errors import InputError
from upo.models.adversary import Adversary
from upo.models.factorization import MatrixFactorization, NeuralCollaborativeFiltering
from upo.models.imputation import ConstantImputation
from upo.models.propensity import AdditivePropensity
from upo.pairs.target import Positive

N_U, N_I, DIM = 6, 9, 4
SIZES = Sizes(N_U, N_I, [0, 1], 0.08)


def grid():
    index = torch.arange(N_U * N_I).expand(2, -1)
    return index // N_I, index % N_I


def interaction(logits):
    """What an additive table lacks: [R, N_U * N_I] minus its user and item means."""
    table = logits.view(2, N_U, N_I)
    return (
        table
        - table.mean(2, keepdim=True)
        - table.mean(1, keepdim=True)
        + table.mean((1, 2), keepdim=True)
    )


def test_factorization_is_the_inner_product():
    net = MatrixFactorization(SIZES, dim=DIM, biases=True)
    for p in net.bias.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    users, items = grid()
    logits = net(users, items).view(2, N_U, N_I)
    for r in range(2):
        table = net.user.tables()[r] @ net.item.tables()[r].T
        a, b = net.bias.user.tables()[r], net.bias.item.tables()[r]
        # float32 sums of 4 products of order 1
        torch.testing.assert_close(
            logits[r], table + a + b.T + net.bias.globe[r], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("dim", [1, 4])
def test_the_two_ways_of_the_additive_propensity_agree(dim):
    net = AdditivePropensity(SIZES, dim=dim, init_std=1.0)
    users, items = grid()  # 54 pairs: by tables; a slice of 5: pair by pair
    whole = net(users, items)
    parts = [net(users[:, lo : lo + 5], items[:, lo : lo + 5]) for lo in range(0, N_U * N_I, 5)]
    # float32 sums of at most 8 products of order 1, in another order
    torch.testing.assert_close(torch.cat(parts, -1), whole, rtol=0, atol=1e-5)
    weights = torch.randn(2, N_U * N_I, generator=torch.Generator().manual_seed(0))
    params = list(net.parameters())
    by_table = torch.autograd.grad((whole * weights).sum(), params)
    by_pair = torch.autograd.grad((torch.cat(parts, -1) * weights).sum(), params)
    for a, b in zip(by_table, by_pair, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # sums of 54 terms of order 1


def test_the_additive_propensity_is_additive_and_the_perceptron_is_not():
    users, items = grid()
    additive = interaction(AdditivePropensity(SIZES, dim=DIM, init_std=1.0)(users, items))
    assert additive.abs().max() < 1e-5  # float32 rounding of logits of order 1
    ncf = NeuralCollaborativeFiltering(SIZES, dim=DIM, hidden=[8], init_std=1.0)
    assert interaction(ncf(users, items)).abs().amax((1, 2)).min() > 0.05
    linear = NeuralCollaborativeFiltering(SIZES, dim=DIM, hidden=[8], init_std=1.0)
    linear.layers[0].bias.data += 100  # every unit stays on: the perceptron becomes affine
    assert interaction(linear(users, items)).abs().max() < 1e-3  # float32 at values of order 100


def test_the_perceptron_equals_its_formula():
    net = NeuralCollaborativeFiltering(SIZES, dim=DIM, hidden=[5, 3], init_std=1.0)
    users, items = grid()
    logits = net(users, items)
    assert [tuple(layer.weight.shape[1:]) for layer in net.layers] == [(8, 5), (5, 3), (3, 1)]
    for r in range(2):
        x = torch.cat([net.user.tables()[r][users[r]], net.item.tables()[r][items[r]]], -1)
        first, second, last = net.layers
        x = torch.relu(x @ first.weight[r] + first.bias[r])
        x = torch.relu(x @ second.weight[r] + second.bias[r])
        x = x @ last.weight[r] + last.bias[r]
        torch.testing.assert_close(logits[r], x.squeeze(-1), rtol=0, atol=1e-5)


def test_the_propensity_starts_near_the_density():
    users, items = grid()
    flat = AdditivePropensity(SIZES, dim=DIM, init_std=0.0)(users, items)
    torch.testing.assert_close(
        torch.sigmoid(flat), torch.full((2, N_U * N_I), 0.08), rtol=1e-5, atol=0
    )
    given = AdditivePropensity(SIZES, dim=DIM, init_std=0.0, init_logit=-1.5)(users, items)
    assert (given == -1.5).all()


def test_a_log_of_every_pair_has_a_finite_start():
    users, items = grid()
    net = AdditivePropensity(Sizes(N_U, N_I, [0, 1], 1.0), dim=DIM, init_std=0.0)
    logits = net(users, items)
    assert torch.isfinite(logits).all()
    assert torch.sigmoid(logits).min() > 0.999


@pytest.mark.parametrize(("bound", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1)])
@pytest.mark.parametrize("hidden", [0, 5])
def test_weights_of_the_adversary_are_bounded(bound, low, high, hidden):
    net = Adversary(SIZES, dim=DIM, hidden=hidden, bound=bound)
    g = torch.Generator().manual_seed(0)
    for scale in (1.0, 1e6):
        weights = net(scale * torch.randn(2, 500, 2 * DIM, generator=g))
        assert weights.min() >= low
        assert weights.max() <= high
        assert weights.max() - weights.min() > 0.5 * (high - low)  # and the bounds are in use


def test_the_unbounded_adversary_is_unbounded():
    net = Adversary(SIZES, dim=DIM, hidden=5, bound="none")
    x = torch.randn(2, 50, 2 * DIM, generator=torch.Generator().manual_seed(0))
    assert net(1e3 * x).abs().max() > 100
    assert [len(net.layers), len(Adversary(SIZES, dim=DIM, hidden=0).layers)] == [2, 1]


def test_the_constant_imputation():
    users, _ = grid()
    assert (torch.sigmoid(ConstantImputation(SIZES)(users, users)) == 0.5).all()
    fixed = ConstantImputation(SIZES, label=0.3)
    torch.testing.assert_close(torch.sigmoid(fixed(users, users)), torch.full((2, N_U * N_I), 0.3))
    assert not fixed.estimate
    # extremes are kept off infinite logits
    fixed.set_output(Positive().output(torch.tensor([0.0, 0.7])))
    assert torch.isfinite(fixed(users, users)).all()
    torch.testing.assert_close(fixed.logit[1, 0].item(), math.log(0.7 / 0.3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: MatrixFactorization(SIZES, dim=0), "dim"),
        (lambda: AdditivePropensity(SIZES, dim=-1), "dim"),
        (lambda: NeuralCollaborativeFiltering(SIZES, dim=2, hidden=[]), "hidden"),
        (lambda: NeuralCollaborativeFiltering(SIZES, dim=2, hidden=[4, 0]), "hidden"),
        (lambda: Adversary(SIZES, dim=2, hidden=-1), "hidden"),
        (lambda: Adversary(SIZES, dim=2, hidden=4, bound="relu"), "bound"),
        (lambda: ConstantImputation(SIZES, label=1.0), "label"),
        (lambda: MatrixFactorization(SIZES, dim=2, init_std=-0.1), "init_std"),
        (lambda: normal([0, 1, 2], (1,), [0.1, 0.2], "x"), "init_std"),
    ],
)
def test_wrong_arguments_are_named(build, named):
    with pytest.raises(InputError, match=named):
        build()
