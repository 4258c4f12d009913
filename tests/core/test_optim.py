from itertools import pairwise

import pytest
import torch
from omegaconf import ListConfig

from upo.core.optim import ReplicaAdam, of_members, part_of_stack, per_replica
from upo.errors import InputError

STEPS = 200
# float32: an update at rate 1 loses up to eps * |parameter| (1.2e-7 here) before it is scaled by
# the rate, and every addition rounds by as much; over 200 steps this walks to well under 1e-5
FLOAT = {"rtol": 0, "atol": 1e-5}


def make(replicas):
    """An embedding ``[R * 5, 3]``, a matrix ``[R, 4, 2]`` and a bias ``[R, 1]``."""
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=g)
        for shape in [(replicas * 5, 3), (replicas, 4, 2), (replicas, 1)]
    ]


def train(optimizer, params, start, grads):
    """Steps on a quadratic with noise that is given, so a stack and its parts see the same."""
    for noise in grads:
        for p, first, n in zip(params, start, noise, strict=True):
            p.grad = p.detach() - first * 0.5 + n
        optimizer.step()


def noises(start):
    g = torch.Generator().manual_seed(1)
    return [[torch.randn(x.shape, generator=g) for x in start] for _ in range(STEPS)]


def part(x, r, replicas):
    n = len(x) // replicas
    return x[r * n : (r + 1) * n]


def wrap(start):
    return [torch.nn.Parameter(x.clone()) for x in start]


def test_scalar_rates_give_torch_adam():
    start = make(3)
    ours, theirs = wrap(start), wrap(start)
    settings = {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
    train(ReplicaAdam(ours, replicas=3, **settings), ours, start, noises(start))
    train(torch.optim.Adam(theirs, **settings), theirs, start, noises(start))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **FLOAT)  # the fused kernel orders operations otherwise


@pytest.mark.parametrize("lr", [[0.02, 0.001, 0.05], 0.02], ids=["rates", "rate"])
@pytest.mark.parametrize("weight_decay", [[0.0, 0.1, 0.01], 0.1], ids=["decays", "decay"])
def test_a_stack_equals_runs_with_each_replicas_rates(lr, weight_decay):
    start = make(3)
    noise = noises(start)
    stack = wrap(start)
    train(ReplicaAdam(stack, replicas=3, lr=lr, weight_decay=weight_decay), stack, start, noise)
    for r in range(3):
        alone = wrap([part(x, r, 3) for x in start])
        optimizer = torch.optim.Adam(
            alone,
            lr=lr[r] if isinstance(lr, list) else lr,
            weight_decay=weight_decay[r] if isinstance(weight_decay, list) else weight_decay,
        )
        train(
            optimizer,
            alone,
            [part(x, r, 3) for x in start],
            [[part(n, r, 3) for n in step] for step in noise],
        )
        for a, b in zip(stack, alone, strict=True):
            torch.testing.assert_close(part(a, r, 3), b, **FLOAT)


def test_small_rates_are_not_rounded():
    """With a lerp of weight 1 - rate in float32, a rate of 1e-4 is off by up to 3e-4 of itself."""
    start = torch.zeros(2, 1)
    p = torch.nn.Parameter(start.clone())
    optimizer = ReplicaAdam([p], replicas=2, lr=[1.3e-4, 1e-2])
    p.grad = torch.ones(2, 1)
    optimizer.step()
    # Adam's first step is rate / (1 + eps); eps = 1e-8 and float32 rounding are below 1e-6 of it
    torch.testing.assert_close(p.detach(), torch.tensor([[-1.3e-4], [-1e-2]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["expanded", "strided", "shared"])
def test_gradients_may_be_expanded_strided_or_shared(kind):
    g = torch.Generator().manual_seed(0)
    dense = torch.randn(4, 3, generator=g)
    grad = {"expanded": dense[:1, :1].expand(4, 3), "strided": dense.t().contiguous().t()}.get(
        kind, dense
    )
    odd, plain = ([torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2)] for _ in range(2))
    for params, given in ((odd, [grad, grad]), (plain, [grad.clone(), grad.clone()])):
        optimizer = ReplicaAdam(params, replicas=2, lr=[0.1, 0.2], weight_decay=[0.0, 0.5])
        for p, x in zip(params, given, strict=True):
            p.grad = x
        optimizer.step()
    for a, b in zip(odd, plain, strict=True):
        assert torch.equal(a, b)


def test_a_parameter_without_gradient_stays():
    params = [torch.nn.Parameter(torch.ones(2, 1)) for _ in range(2)]
    optimizer = ReplicaAdam(params, replicas=2, lr=[0.1, 0.2], weight_decay=[0.0, 0.5])
    params[0].grad = torch.ones(2, 1)
    optimizer.step()
    assert torch.equal(params[1], torch.ones(2, 1))
    assert (params[0] < 1).all()


def test_the_state_survives_saving_and_loading():
    start = make(2)
    noise = noises(start)
    whole, halves = wrap(start), wrap(start)
    rates = {"replicas": 2, "lr": [0.1, 0.01], "weight_decay": [0.0, 0.1]}
    train(ReplicaAdam(whole, **rates), whole, start, noise)
    state = None
    for lo, hi in pairwise([0, 70, STEPS]):
        optimizer = ReplicaAdam(halves, **rates)
        if state is not None:
            optimizer.load_state_dict(state)
        train(optimizer, halves, start, noise[lo:hi])
        state = optimizer.state_dict()
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": [0.1, 0.0]},
        {"lr": [0.1, 0.1, 0.1]},
        {"lr": []},
        {"weight_decay": -1e-9},
        {"weight_decay": float("nan")},
        {"weight_decay": [0.0, float("inf")]},
        {"weight_decay": torch.tensor([0.1, 0.1, 0.2])},
    ],
    ids=str,
)
def test_wrong_rates_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ReplicaAdam([torch.nn.Parameter(torch.ones(2, 1))], replicas=2, **wrong)


@pytest.mark.parametrize(
    "given", [0.25, [0.25], [0.25, 0.25], torch.tensor([0.25, 0.25]), ListConfig([0.25])]
)
def test_values_that_agree_become_a_number(given):
    assert per_replica(given, 2, "lr") == 0.25
    assert isinstance(per_replica(given, 2, "lr"), float)


@pytest.mark.parametrize("given", [[0.25, 0.5], ListConfig([0.25, 0.5]), torch.tensor([0.25, 0.5])])
def test_values_that_differ_become_a_tensor(given):
    assert torch.equal(per_replica(given, 2, "lr"), torch.tensor([0.25, 0.5]))


def test_a_part_of_a_part_reads_the_values_of_the_whole():
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    with part_of_stack([1, 3, 4], 5):
        assert of_members(values) == [1.0, 3.0, 4.0]
        with part_of_stack([0, 2], 3):
            assert of_members(values) == [1.0, 4.0]
        assert of_members(values) == [1.0, 3.0, 4.0]
    assert of_members(values) == values
