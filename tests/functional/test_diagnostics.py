from itertools import product

import pytest
import torch

from upo.functional.binning import equal_width_bins
from upo.functional.diagnostics import bmse, dr_bias, dr_variance, ece, effective_sample_size

R, N, D, M = 3, 40, 4, 5
EXACT = {"rtol": 1e-13, "atol": 1e-13}  # float64, another order of summation


@pytest.fixture
def world():
    """Propensities, observations, errors of R replicas, and features."""
    g = torch.Generator().manual_seed(0)
    p_hat, p, e, e_hat = torch.rand(4, R, N, generator=g, dtype=torch.float64).clamp(0.05, 0.95)
    o = torch.bernoulli(p, generator=g).long()
    features = torch.randn(R, N, D, generator=g, dtype=torch.float64)
    counts = torch.randint(0, 4, (N,), generator=g)
    return p_hat, p, o, e, e_hat, features, counts


def loop_ece(p_hat, o):
    total = 0.0
    for m in range(M):
        rows = [i for i, p in enumerate(p_hat) if m / M < p <= (m + 1) / M]
        if rows:
            gap = sum(o[i] for i in rows) / len(rows) - sum(p_hat[i] for i in rows) / len(rows)
            total += len(rows) / len(p_hat) * abs(gap)
    return total


def loop_bmse(p_hat, o, features):
    total = 0.0
    for j in range(len(features[0])):
        mean = 0.0
        for p, observed, phi in zip(p_hat, o, features, strict=True):
            mean += (observed / p - (1 - observed) / (1 - p)) * phi[j] / len(p_hat)
        total += mean**2
    return total


def loop_bias(p_hat, o, e, e_hat):
    rows = zip(p_hat, o, e, e_hat, strict=True)
    return abs(sum((oi - p) * (ei - hi) / p for p, oi, ei, hi in rows)) / len(p_hat)


def loop_variance(p_hat, p, e, e_hat):
    rows = zip(p_hat, p, e, e_hat, strict=True)
    return sum(q * (1 - q) / h**2 * (ei - hi) ** 2 for h, q, ei, hi in rows) / len(p_hat) ** 2


def test_values_match_the_definitions(world):
    p_hat, p, o, e, e_hat, features, _ = world
    for fast, loop, args in [
        (ece(p_hat, o, equal_width_bins(p_hat, M), M), loop_ece, (p_hat, o)),
        (bmse(p_hat, o, features), loop_bmse, (p_hat, o, features)),
        (dr_bias(p_hat, o, e, e_hat), loop_bias, (p_hat, o, e, e_hat)),
        (dr_variance(p_hat, p, e, e_hat), loop_variance, (p_hat, p, e, e_hat)),
    ]:
        expected = [loop(*(x[r].tolist() for x in args)) for r in range(R)]
        torch.testing.assert_close(fast, torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_replicas_and_shared_features(world):
    p_hat, _, o, _, _, features, _ = world
    stacked = bmse(p_hat, o, features[0])
    alone = torch.stack([bmse(p_hat[r], o[r], features[0]) for r in range(R)])
    torch.testing.assert_close(stacked, alone, **EXACT)


def test_a_weight_repeats_a_row(world):
    p_hat, p, o, e, e_hat, features, n = world

    def every(rows, weight):
        a, b, c, d, f = (x[:, rows] for x in (p_hat, o, p, e, e_hat))
        index = equal_width_bins(a, M)
        return torch.stack(
            [
                ece(a, b, index, M, weight),
                bmse(a, b, features[:, rows], weight),
                dr_bias(a, b, d, f, weight),
                dr_variance(a, c, d, f, weight),
            ]
        )

    everyone = torch.arange(N)
    repeated = every(everyone.repeat_interleave(n), None)
    torch.testing.assert_close(every(everyone, n), repeated, **EXACT)


def test_bias_and_variance_are_those_of_the_doubly_robust_estimate(world):
    p_hat, p, _, e, e_hat, _, _ = (x[:1, :6] for x in world[:5] + world[:2])
    mean = second = 0.0
    for pattern in product([False, True], repeat=6):  # every o, with its probability
        o = torch.tensor(pattern)
        probability = torch.where(o, p, 1 - p).prod()
        estimate = (e_hat + o * (e - e_hat) / p_hat).mean()
        mean += probability * estimate
        second += probability * (estimate - e.mean()) ** 2
    bias, variance = dr_bias(p_hat, p, e, e_hat)[0], dr_variance(p_hat, p, e, e_hat)[0]
    torch.testing.assert_close(bias, (mean - e.mean()).abs(), **EXACT)
    torch.testing.assert_close(variance + bias**2, second, **EXACT)


def test_limits(world):
    p_hat, p, o, e, e_hat, _, _ = world
    assert dr_bias(p, p, e, e_hat).eq(0).all()  # the true propensity
    assert dr_bias(p_hat, o, e, e).eq(0).all()  # the true errors
    assert dr_variance(p_hat, o, e, e_hat).eq(0).all()  # observation is certain
    constant = o.double().mean(-1, keepdim=True).expand(R, N)
    torch.testing.assert_close(
        ece(constant, o, equal_width_bins(constant, M), M), torch.zeros(R).double(), **EXACT
    )


def test_bmse_never_divides_by_what_it_does_not_need():
    p_hat, o = torch.tensor([1.0, 0.0]), torch.tensor([1, 0])
    assert bmse(p_hat, o, torch.ones(2, 1)).item() == 0  # terms 1 and -1


def test_float32_input_is_computed_in_float64(world):
    p_hat, _, o, e, e_hat, _, _ = (x.float() for x in world)
    value = dr_bias(p_hat, o, e, e_hat)
    assert value.dtype == torch.float64
    assert torch.equal(value, dr_bias(*(x.double() for x in (p_hat, o, e, e_hat))))


def test_effective_sample_size():
    assert effective_sample_size(torch.full((7,), 0.3)).item() == pytest.approx(7)
    assert effective_sample_size(torch.tensor([[2, 0, 0], [3, 1, 0]])).tolist() == [1.0, 1.6]
    assert effective_sample_size(torch.zeros(3)).isnan()
