from itertools import product

import pytest
import torch

from upo.functional import kernels


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("kind", "power"), [("gaussian", 2), ("exponential", 1)])
def test_kernel_is_that_of_the_distance(kind, power):
    x, anchors = draw(0, 2, 7, 4), draw(1, 2, 3, 4)
    value = kernels.pair_kernel(x, anchors, kind=kind, gamma=0.7)
    distance = torch.cdist(anchors, x)
    torch.testing.assert_close(value, torch.exp(-0.7 * distance**power))


def test_kernel_of_a_pair_with_itself_is_one():
    x = draw(0, 2, 5, 4).float()
    value = kernels.pair_kernel(x, x).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(value, torch.ones(2, 5), rtol=0, atol=1e-5)


def test_unknown_kernel_is_named():
    with pytest.raises(ValueError, match="'cubic'"):
        kernels.pair_kernel(draw(0, 1, 2, 3), draw(0, 1, 2, 3), kind="cubic")


def test_unit_range_maps_extremes_and_constants():
    x = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]]])
    scaled = kernels.unit_range(x, x.amin(1), x.amax(1))
    expected = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]])
    torch.testing.assert_close(scaled, expected, rtol=0, atol=0)


def test_the_constant_function_asks_for_a_mean_weight_of_one():
    w = 2 * draw(0, 2, 6)
    gap = kernels.balance_gap(w, torch.ones(2, 1, 6).double(), torch.ones(2, 1, 9).double())
    torch.testing.assert_close(gap[:, 0], 1 - w.mean(-1))


def test_weights_over_all_of_d_with_ones_are_balanced():
    k = draw(0, 1, 4, 8)
    gap = kernels.balance_gap(torch.ones(1, 8).double(), k, k)
    torch.testing.assert_close(gap, torch.zeros(1, 4).double(), rtol=0, atol=1e-15)


def test_inverse_propensities_balance_every_kernel_in_expectation():
    k, p = draw(0, 1, 4, 6), 0.1 + 0.8 * draw(1, 6)
    expected = torch.zeros(1, 4, dtype=torch.float64)
    for o in map(torch.tensor, product([False, True], repeat=6)):
        gap = k.mean(-1)  # nothing observed
        if o.any():
            w = (o.double().sum() / 6 / p[o])[None]
            gap = kernels.balance_gap(w, k[..., o], k)
        expected += torch.where(o, p, 1 - p).prod() * gap
    # every pattern of o is enumerated: only float64 rounding is left
    torch.testing.assert_close(expected, torch.zeros(1, 4).double(), rtol=0, atol=1e-12)


def test_hinge_takes_each_gap_by_itself_and_the_public_sum_cancels():
    gap = torch.tensor([[0.5, -0.5], [0.2, 0.05]])
    torch.testing.assert_close(kernels.balance_hinge(gap, 0.1), torch.tensor([0.8, 0.1]))
    summed = kernels.balance_hinge(gap, 0.1, summed=True)
    torch.testing.assert_close(summed, torch.tensor([0.0, 0.15]))


def test_slack_may_differ_between_replicas():
    gap = torch.tensor([[0.5, -0.5], [0.5, -0.5]])
    value = kernels.balance_hinge(gap, torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(value, torch.tensor([0.8, 0.4]))


def test_entropy_is_finite_at_zero_and_least_at_even_weights_of_mean_one():
    assert kernels.weight_entropy(torch.zeros(1, 3)).item() == 0.0
    even = kernels.weight_entropy(torch.ones(1, 4))
    uneven = kernels.weight_entropy(torch.tensor([[0.5, 1.5, 0.7, 1.3]]))
    assert even.item() == 0.0 < uneven.item()


def test_an_exact_expansion_has_no_loss():
    k, a = draw(0, 2, 3, 8), draw(1, 2, 3)
    target = (a.unsqueeze(1) @ k).squeeze(1)
    loss = kernels.expansion_loss(target, a, k, draw(2, 2, 8))
    torch.testing.assert_close(loss, torch.zeros(2).double(), rtol=0, atol=1e-20)


@pytest.mark.parametrize(
    "loss",
    [
        kernels.weight_entropy,
        lambda w: kernels.balance_hinge(
            kernels.balance_gap(w, draw(1, 2, 3, 6), draw(2, 2, 3, 9)), 0.01
        ),
        lambda w: kernels.expansion_loss(draw(1, 2, 6), w[:, :3], draw(2, 2, 3, 6), w),
    ],
    ids=["entropy", "hinge", "expansion"],
)
def test_gradients_agree_with_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, (0.5 + draw(0, 2, 6).requires_grad_(),))


def test_the_noise_of_a_gap_is_its_spread_over_batches():
    w, k_o, k_d = 2 * draw(0, 1, 64), draw(1, 1, 2, 64), draw(2, 1, 2, 96)
    found = kernels.balance_noise(w, k_o, k_d)
    g = torch.Generator().manual_seed(0)
    gaps = []
    for _ in range(4000):
        o, d = torch.randint(64, (64,), generator=g), torch.randint(96, (96,), generator=g)
        gaps.append(kernels.balance_gap(w[:, o], k_o[..., o], k_d[..., d]))
    # a spread of 4,000 draws has a relative error of 1.1 %
    torch.testing.assert_close(torch.cat(gaps).std(0)[None], found, rtol=0.04, atol=0)


def test_the_worst_function_of_all_pairs_is_the_maximum_mean_discrepancy():
    x_o, x_d, w = draw(0, 2, 7, 3), draw(1, 2, 9, 3), 2 * draw(2, 2, 7)
    every = torch.cat([x_o, x_d], dim=1)
    k = kernels.pair_kernel(every, every)
    signed = torch.cat([w / 7, torch.full((2, 9), -1 / 9, dtype=torch.float64)], dim=-1)
    mmd = (signed[:, None] @ k @ signed[..., None]).flatten().sqrt()
    gap = kernels.balance_gap(w, k[..., :7], k[..., 7:])
    worst = (kernels.whitening(k, 1e-12) @ gap[..., None]).squeeze(-1)
    # the kernels' least eigenvalue is of the order of 1e-6, against a ridge of 1e-12
    torch.testing.assert_close(worst.norm(dim=-1), mmd, rtol=1e-5, atol=0)


def test_no_function_of_the_anchors_has_a_larger_quotient_than_the_worst():
    k = kernels.pair_kernel(x := draw(0, 1, 6, 3), x)
    d = draw(1, 1, 6) - 0.5
    worst = (kernels.whitening(k, 1e-10) @ d[..., None]).norm()
    a = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = torch.linalg.solve(k[0], d[0])
    quotient = (torch.cat([a, best[None]]) @ d[0]).abs()
    quotient /= torch.einsum(
        "ni,ij,nj->n", (every := torch.cat([a, best[None]])), k[0], every
    ).sqrt()
    assert (quotient <= worst * (1 + 1e-6)).all()
    torch.testing.assert_close(quotient[-1], worst, rtol=1e-6, atol=0)
