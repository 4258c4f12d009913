"""Prediction losses against enumerations of every pattern of observation."""

from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.functional.diagnostics import dr_variance
from upo.functional.prediction import dr_loss, dr_loss_public, ips_loss, naive_loss, snips_loss
from upo.models.imputation import DirectError, PseudoLabel

N = 6  # pairs of D; 64 patterns of o
SEEDS = st.integers(0, 2**31 - 1)
EXACT = {"rtol": 0, "atol": 1e-11}  # float64 sums over 64 patterns of terms up to about 1e3


def draw(seed, count):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, N, generator=g, dtype=torch.float64).clamp(0.05, 0.95)


def ips(e, e_hat, o, p_hat):
    """L_IPS of full data; without observations its sum is empty."""
    return ips_loss(e[:, o], p_hat[:, o], int(o.sum()) / N) if o.any() else e.new_zeros(2)


def dr(e, e_hat, o, p_hat):
    if not o.any():
        return e_hat.mean(-1)
    return dr_loss(e[:, o], e_hat[:, o], p_hat[:, o], e_hat, int(o.sum()) / N)


def public_dr(e, e_hat, o, p_hat):
    return dr_loss_public(e[:, o], e_hat[:, o], p_hat[:, o], e_hat)


def moments(loss, e, e_hat, p, p_hat):
    """Mean and variance of a loss over o, where each pair is observed with probability p.

    Replicas share o, so p is one replica's.
    """
    patterns = [torch.tensor(bits) for bits in product([False, True], repeat=N)]
    chance = torch.stack([torch.where(o, p, 1 - p).prod() for o in patterns])
    values = torch.stack([loss(e, e_hat, o, p_hat) for o in patterns])  # [64, R]
    mean = (chance[:, None] * values).sum(0)
    return mean, (chance[:, None] * (values - mean) ** 2).sum(0)


@pytest.mark.parametrize("loss", [ips, dr], ids=lambda f: f.__name__)
@given(SEEDS)
@settings(max_examples=8)
def test_unbiased_at_the_true_propensity(loss, seed):
    e, e_hat, p = draw(seed, 3)
    mean, _ = moments(loss, e, e_hat, p[0], p[:1].expand(2, -1))
    torch.testing.assert_close(mean, e.mean(-1), **EXACT)


@given(SEEDS)
@settings(max_examples=8)
def test_the_public_form_is_biased_by_what_is_not_divided(seed):
    e, e_hat, p = draw(seed, 3)
    mean, _ = moments(public_dr, e, e_hat, p[0], p[:1].expand(2, -1))
    torch.testing.assert_close(mean, e.mean(-1) + ((1 - p[0]) * e_hat).mean(-1), **EXACT)
    assert (mean - e.mean(-1)).min() > 1e-3  # (1 - p) e_hat is at least 0.05^2


@pytest.mark.parametrize("loss", [ips, dr], ids=lambda f: f.__name__)
def test_a_double_sigmoid_is_biased(loss):
    """Propensities squeezed to (0.5, 0.731) hardly weight."""
    e, e_hat, p = draw(0, 3)
    p, e, e_hat = 0.3 * p, 0.5 + e, 0.1 * e_hat  # sparse data, errors above the imputed ones
    twice = torch.sigmoid(p)
    assert twice.min() > 0.5
    assert twice.max() < 0.731
    right, _ = moments(loss, e, e_hat, p[0], p[:1].expand(2, -1))
    wrong, _ = moments(loss, e, e_hat, p[0], twice[:1].expand(2, -1))
    torch.testing.assert_close(right, e.mean(-1), **EXACT)
    assert (wrong - e.mean(-1)).abs().min() > 0.3


@given(SEEDS)
@settings(max_examples=20)
def test_right_imputed_errors_are_unbiased_for_any_propensity(seed):
    e, p_hat = draw(seed, 2)
    for o in (torch.tensor([True] * 3 + [False] * 3), torch.zeros(N, dtype=torch.bool)):
        torch.testing.assert_close(dr(e, e, o, p_hat), e.mean(-1), **EXACT)


@given(SEEDS)
@settings(max_examples=8)
def test_bias_and_variance_at_any_propensity(seed):
    """Bias sum (p - p_hat)(e - e_hat) / p_hat and variance sum p(1 - p)/p_hat^2 (e - e_hat)^2."""
    e, e_hat, p, p_hat = draw(seed, 4)
    p = p[:1].expand(2, -1)
    mean, variance = moments(dr, e, e_hat, p[0], p_hat)
    bias = ((p - p_hat) / p_hat * (e - e_hat)).mean(-1)
    torch.testing.assert_close(mean, e.mean(-1) + bias, **EXACT)
    expected = (p * (1 - p) / p_hat**2 * (e - e_hat) ** 2).sum(-1) / N**2
    torch.testing.assert_close(variance, expected, **EXACT)
    torch.testing.assert_close(variance, dr_variance(p_hat, p, e, e_hat), **EXACT)
    _, at_truth = moments(dr, e, e_hat, p[0], p)
    torch.testing.assert_close(at_truth, ((1 - p) / p * (e - e_hat) ** 2).sum(-1) / N**2, **EXACT)


@given(SEEDS)
@settings(max_examples=20)
def test_without_imputed_errors_dr_is_ips(seed):
    e, p_hat = draw(seed, 2)
    o = torch.tensor([True, False, True, True, False, False])
    assert torch.equal(dr(e, 0 * e, o, p_hat), ips(e, None, o, p_hat))


@given(SEEDS, st.floats(0.1, 10))
@settings(max_examples=20)
def test_scales_of_the_propensity(seed, c):
    e, p_hat = draw(seed, 2)
    torch.testing.assert_close(snips_loss(e, c * p_hat), snips_loss(e, p_hat), **EXACT)
    torch.testing.assert_close(ips_loss(e, c * p_hat, 0.3), ips_loss(e, p_hat, 0.3) / c, **EXACT)


@given(SEEDS)
@settings(max_examples=20)
def test_a_constant_propensity_is_naive(seed):
    e, _ = draw(seed, 2)
    constant = torch.full_like(e, 0.3)
    torch.testing.assert_close(snips_loss(e, constant), naive_loss(e), **EXACT)
    torch.testing.assert_close(ips_loss(e, constant, 0.3), naive_loss(e), **EXACT)
    assert torch.equal(ips_loss(e, torch.ones_like(e), 1.0), naive_loss(e))


@given(SEEDS)
@settings(max_examples=20)
def test_snips_stays_within_its_errors(seed):
    e, p_hat = draw(seed, 2)
    loss = snips_loss(e, p_hat**4)
    assert (loss <= e.amax(-1) + 1e-12).all()  # a weighted mean, up to float64 rounding
    assert (loss >= e.amin(-1) - 1e-12).all()


@pytest.mark.parametrize("b", [1, 2, 3, 6])
@pytest.mark.parametrize("n", [1, 4, 8, 24])
def test_batches_of_any_ratio_average_to_the_full_loss(b, n):
    g = torch.Generator().manual_seed(0)
    e, e_hat, p_hat = torch.rand(3, 2, 24, generator=g, dtype=torch.float64).clamp(0.05, 0.95)
    order, rows = torch.randperm(24, generator=g), torch.randperm(24, generator=g)[:6]
    density = 6 / 24

    def full(loss):
        return loss(e[:, rows], e_hat[:, rows], p_hat[:, rows], e_hat)

    def average(loss):
        values = [
            loss(e[:, o], e_hat[:, o], p_hat[:, o], e_hat[:, d])
            for o in rows.split(b)
            for d in order.split(n)
        ]
        return torch.stack(values).mean(0)

    textbook = partial(dr_loss, density=density)
    torch.testing.assert_close(average(textbook), full(textbook), **EXACT)
    if b / n != density:  # the public form weights O by b / n instead of |O| / |D|
        assert (average(dr_loss_public) - full(dr_loss_public)).abs().min() > 1e-2


def test_the_direct_form_trains_like_ips_and_the_pseudo_label_does_not():
    g = torch.Generator().manual_seed(0)
    f_d = torch.randn(2, 24, generator=g, dtype=torch.float64).requires_grad_()
    g_d = torch.randn(2, 24, generator=g, dtype=torch.float64)
    rows, p_hat = torch.arange(0, 24, 4), torch.rand(2, 6, generator=g).double().clamp(0.1)
    labels = torch.bernoulli(torch.full((2, 6), 0.5, dtype=torch.float64), generator=g)

    def slope(loss):
        return torch.autograd.grad(loss.sum(), f_d)[0]

    def dr_slope(form):
        e, e_hat = form.error(f_d[:, rows], labels), form.imputed(f_d, g_d)
        return slope(dr_loss(e, e_hat[:, rows], p_hat, e_hat, 0.25))

    ips_slope = slope(ips_loss(PseudoLabel().error(f_d[:, rows], labels), p_hat, 0.25))
    assert torch.equal(dr_slope(DirectError()), ips_slope)
    assert (dr_slope(PseudoLabel()) - ips_slope).abs().amax(-1).min() > 1e-2


def test_gradients():
    e, e_hat, p_hat, e_hat_d = (x.requires_grad_() for x in draw(1, 4).unbind())
    assert torch.autograd.gradcheck(naive_loss, (e,))
    assert torch.autograd.gradcheck(partial(ips_loss, density=0.3), (e, p_hat))
    assert torch.autograd.gradcheck(snips_loss, (e, p_hat))
    assert torch.autograd.gradcheck(partial(dr_loss, density=0.3), (e, e_hat, p_hat, e_hat_d))
    assert torch.autograd.gradcheck(dr_loss_public, (e, e_hat, p_hat, e_hat_d))


@pytest.mark.parametrize(
    "loss",
    [
        naive_loss,
        lambda e: ips_loss(e, e + 0.1, 0.3),
        lambda e: snips_loss(e, e + 0.1),
        lambda e: dr_loss(e, e / 2, e + 0.1, e / 3, 0.3),
        lambda e: dr_loss_public(e, e / 2, e + 0.1, e / 3),
    ],
    ids=["naive", "ips", "snips", "dr", "dr_public"],
)
def test_replicas_do_not_mix(loss):
    (e,) = draw(0, 1)
    values = loss(e)
    assert values.shape == (2,)
    for r in range(2):
        assert torch.equal(values[r], loss(e[r : r + 1])[0])
