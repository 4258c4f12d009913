"""Every network: a replica of a stack is the network of its seed alone, and replicas do not mix."""

from functools import partial

import pytest
import torch

from upo.core.layers import ReplicaLinear, Sizes, normal
from upo.models.adversary import Adversary
from upo.models.factorization import MatrixFactorization, NeuralCollaborativeFiltering
from upo.models.imputation import ConstantImputation
from upo.models.propensity import AdditivePropensity

SEEDS = [3, 0, 11]
R, N_U, N_I, DIM = 3, 6, 9, 4
NETWORKS = {
    "mf": partial(MatrixFactorization, dim=DIM),
    "mf with biases": partial(MatrixFactorization, dim=DIM, biases=True),
    "mf at several scales": partial(MatrixFactorization, dim=DIM, init_std=[0.1, 1.0, 2.0]),
    "ncf": partial(NeuralCollaborativeFiltering, dim=DIM, hidden=[5, 3], init_std=1.0),
    "additive": partial(AdditivePropensity, dim=DIM, init_std=1.0),
    "constant": ConstantImputation,
}
ADVERSARIES = {
    "mlp": partial(Adversary, dim=DIM, hidden=5),
    "logistic": partial(Adversary, dim=DIM, hidden=0, bound="sigmoid"),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_adversary = pytest.mark.parametrize("name", ADVERSARIES)
# float32 sums of at most 10 terms of order 1; batched kernels may order them differently
ROUNDING = {"rtol": 0, "atol": 1e-5}


def build(name, seeds):
    make = (NETWORKS | ADVERSARIES)[name]
    if name == "mf at several scales" and len(seeds) == 1:
        make = partial(make, init_std=[0.1, 1.0, 2.0][SEEDS.index(seeds[0])])
    net = make(Sizes(N_U, N_I, seeds, 0.2))
    for i, (_, p) in enumerate(sorted(net.named_parameters())):
        if not p.detach().abs().any():  # biases start at 0: give each replica its own
            own = torch.stack([torch.full((p.numel() // len(seeds),), 0.1 * s + i) for s in seeds])
            p.data.copy_(own.view_as(p))
    return net


def draw(batch):
    g = torch.Generator().manual_seed(batch)
    return torch.randint(0, N_U, (R, batch), generator=g), torch.randint(
        0, N_I, (R, batch), generator=g
    )


@pytest.mark.parametrize("name", [*NETWORKS, *ADVERSARIES])
def test_a_replica_starts_as_its_seed_alone(name):
    stack = build(name, SEEDS)
    for r, seed in enumerate(SEEDS):
        alone = dict(build(name, [seed]).named_parameters())
        for key, p in stack.named_parameters():
            assert torch.equal(p.reshape(R, -1)[r], alone[key].reshape(-1)), key


@pytest.mark.parametrize("name", [*NETWORKS, *ADVERSARIES])
def test_replicas_start_apart(name):
    for key, p in build(name, SEEDS).named_parameters():
        if key == "intercept":  # the logit of the density, for every seed
            continue
        rows = {tuple(row.tolist()) for row in p.reshape(R, -1)}
        assert len(rows) == R, key


@every_network
@pytest.mark.parametrize("batch", [0, 1, 5, 40])  # 40: more pairs than users and items
def test_a_replica_computes_what_its_seed_computes_alone(name, batch):
    stack, (users, items) = build(name, SEEDS), draw(batch)
    logits = stack(users, items)
    assert logits.shape == (R, batch)
    for r, seed in enumerate(SEEDS):
        alone = build(name, [seed])
        torch.testing.assert_close(
            logits[r], alone(users[r : r + 1], items[r : r + 1])[0], **ROUNDING
        )
        if hasattr(stack, "features"):
            features = stack.features(users, items)
            assert features.shape == (R, batch, 2 * DIM)
            single = alone.features(users[r : r + 1], items[r : r + 1])
            assert torch.equal(features[r], single[0])


@every_adversary
def test_a_replica_of_the_adversary_computes_what_it_computes_alone(name):
    features = torch.randn(R, 20, 2 * DIM, generator=torch.Generator().manual_seed(0))
    weights = build(name, SEEDS)(features)
    assert weights.shape == (R, 20)
    for r, seed in enumerate(SEEDS):
        alone = build(name, [seed])(features[r : r + 1])
        torch.testing.assert_close(weights[r], alone[0], **ROUNDING)


@pytest.mark.parametrize("name", [n for n in [*NETWORKS, *ADVERSARIES] if n != "constant"])
@pytest.mark.parametrize("batch", [5, 40])
@pytest.mark.parametrize("r", range(R))
def test_no_replica_reaches_the_parameters_of_another(name, batch, r):
    net = build(name, SEEDS)
    if name in ADVERSARIES:
        features = torch.randn(R, batch, 2 * DIM, generator=torch.Generator().manual_seed(0))
        output = net(features)
    else:
        output = net(*draw(batch))
    params = dict(net.named_parameters())
    grads = torch.autograd.grad(output[r].sum(), list(params.values()))
    reached = []
    for key, g in zip(params, grads, strict=True):
        others = [s for s in range(R) if s != r]
        assert not g.reshape(R, -1)[others].any(), key
        reached.append(bool(g.reshape(R, -1)[r].any()))
    assert any(reached)


def test_purposes_and_layers_draw_apart():
    """Also where names agree in their first letters, as 'prediction' + 'u' and + 'i' do."""
    seen = set()
    for purpose in ("prediction", "imputation", "propensity", "propensity_2"):
        for make in (NETWORKS["mf"], NETWORKS["ncf"], NETWORKS["additive"], ADVERSARIES["mlp"]):
            net = make(Sizes(6, 6, [0]), purpose=purpose)
            drawn = [
                p.flatten()[:3] / p.std() for p in net.parameters() if p.numel() > 3 and p.any()
            ]
            keys = {tuple(round(x, 3) for x in d.tolist()) for d in drawn}
            assert len(keys) == len(drawn)
            seen |= {(purpose, k) for k in keys if ("u", k) not in seen}
    names = {}
    for purpose, key in seen:
        names.setdefault(key, set()).add(purpose)
    assert all(len(purposes) == 1 for purposes in names.values())


def test_initial_weights_have_the_scale_asked_for():
    weights = normal([0, 1], (100, 100), [0.1, 2.0], "x")
    # 10,000 draws: the sample sd has a relative error of 0.7 %, five times that is asked
    torch.testing.assert_close(weights.std((1, 2)), torch.tensor([0.1, 2.0]), rtol=0.035, atol=0)
    layer = ReplicaLinear(100, 100, seeds=[0], purpose="x", gain=3.0)
    torch.testing.assert_close(layer.weight.std(), torch.tensor(0.3), rtol=0.035, atol=0)
    assert not layer.bias.any()


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = build("ncf", SEEDS).user.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(build("ncf", SEEDS).user.weight, first)
