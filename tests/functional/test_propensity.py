"""The UPO loss: Lemma 2, its bins, its gradient, its expectation at the true propensity."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.functional.binning import equal_width_bins
from upo.functional.diagnostics import bmse, dr_bias, ece
from upo.functional.pointwise import cross_entropy
from upo.functional.propensity import (
    P_MAX,
    bin_index,
    bin_residuals,
    binned_upo_loss,
    clip_propensity,
    sample_size_clip,
    sigmoid,
    upo_loss,
)

R, N = 2, 60
SEEDS = st.integers(0, 2**31 - 1)
RULES = ["equal_width", "equal_mass"]
EXACT = {"rtol": 0, "atol": 1e-12}  # float64 means of terms up to about 1e3 for Lemma 2's weights
every_rule = pytest.mark.parametrize("rule", RULES)


def draw(seed):
    """p_hat, p, e, e_hat in [0.05, 0.95], o ~ p, and w of both signs."""
    g = torch.Generator().manual_seed(seed)
    p_hat, p, e, e_hat = torch.rand(4, R, N, generator=g, dtype=torch.float64).clamp(0.05, 0.95)
    w = torch.randn(R, N, generator=g, dtype=torch.float64)
    return p_hat, p, e, e_hat, torch.bernoulli(p, generator=g), w


def loop_upo(p_hat, o, w, index, num_bins):
    """Eq. (4) as printed."""
    total = 0.0
    for m in range(num_bins):
        rows = [i for i in range(len(p_hat)) if index[i] == m]
        total += abs(sum(w[i] * (o[i] - p_hat[i]) for i in rows))
    return total / len(p_hat)


@every_rule
@pytest.mark.parametrize("num_bins", [1, 4, 200])
def test_the_value_is_equation_4(rule, num_bins):
    p_hat, _, _, _, o, w = draw(0)
    index = bin_index(p_hat, num_bins, rule)
    values = upo_loss(p_hat, o, w, num_bins=num_bins, binning=rule)
    for r in range(R):
        rows = [x[r].tolist() for x in (p_hat, o, w, index)]
        assert values[r].item() == pytest.approx(loop_upo(*rows, num_bins), abs=1e-13)
        single = upo_loss(p_hat[r], o[r].bool(), w[r], num_bins=num_bins, binning=rule)
        assert single.shape == ()
        assert single.item() == pytest.approx(values[r].item(), abs=1e-13)


@every_rule
@given(SEEDS, st.integers(1, 40))
@settings(max_examples=25)
def test_unit_weight_gives_the_calibration_error_of_the_same_bins(rule, seed, num_bins):
    p_hat, _, _, _, o, _ = draw(seed)
    index = bin_index(p_hat, num_bins, rule)
    loss = upo_loss(p_hat, o, 1.0, num_bins=num_bins, binning=rule)
    torch.testing.assert_close(loss, ece(p_hat, o, index, num_bins), **EXACT)


@every_rule
@given(SEEDS, st.integers(1, 40))
@settings(max_examples=25)
def test_lemma_2_bounds_balance_bias_and_variance(rule, seed, num_bins):
    p_hat, p, e, e_hat, o, phi = draw(seed)

    def upo(w):
        return upo_loss(p_hat, o, w, num_bins=num_bins, binning=rule)

    one_bin = num_bins == 1
    gap = e - e_hat
    # one-dimensional features: BMSE is the square of the absolute mean imbalance
    imbalance = torch.stack([bmse(p_hat[r], o[r], phi[r][:, None]) for r in range(R)]).sqrt()
    signed_variance = 2 * ((1 - p) / p**2 * (o - p_hat) * gap**2).sum(-1) / N**2
    for bound, value in [
        (upo(phi / (p_hat * (1 - p_hat))), imbalance),
        (upo(gap / p_hat), dr_bias(p_hat, o, e, e_hat)),
        (upo(2 * (1 - p) * gap**2 / (N * p**2)), signed_variance.abs()),
    ]:
        assert (bound >= value - EXACT["atol"]).all()
        if one_bin:
            torch.testing.assert_close(bound, value, **EXACT)


@given(SEEDS)
@settings(max_examples=10)
def test_lemma_2_is_an_equality_with_one_bin(seed):
    p_hat, _, e, e_hat, o, _ = draw(seed)
    loss = upo_loss(p_hat, o, (e - e_hat) / p_hat, num_bins=1)
    torch.testing.assert_close(loss, dr_bias(p_hat, o, e, e_hat), **EXACT)


@every_rule
@given(SEEDS, st.integers(1, 12), st.integers(2, 5))
@settings(max_examples=25)
def test_refining_bins_never_lowers_the_loss(rule, seed, num_bins, factor):
    """Every cut of M bins is a cut of M * factor, for both rules, so the bins nest."""
    p_hat, _, _, _, o, w = draw(seed)
    coarse = upo_loss(p_hat, o, w, num_bins=num_bins, binning=rule)
    fine = upo_loss(p_hat, o, w, num_bins=num_bins * factor, binning=rule)
    assert (fine >= coarse - EXACT["atol"]).all()


@given(SEEDS)
@settings(max_examples=10)
def test_one_pair_per_bin_gives_the_mean_absolute_residual(seed):
    p_hat, _, _, _, o, w = draw(seed)
    index = p_hat.argsort(-1).argsort(-1)
    loss = binned_upo_loss(p_hat, o, w, index, N)
    torch.testing.assert_close(loss, (w.abs() * (o - p_hat).abs()).mean(-1), **EXACT)
    # and no bins give more
    for num_bins in (1, 7, 100):
        assert (upo_loss(p_hat, o, w, num_bins=num_bins) <= loss + EXACT["atol"]).all()


@every_rule
@given(SEEDS, st.integers(1, 40))
@settings(max_examples=10)
def test_the_order_of_a_batch_is_irrelevant(rule, seed, num_bins):
    p_hat, _, _, _, o, w = draw(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    shuffled = upo_loss(p_hat[:, order], o[:, order], w[:, order], num_bins=num_bins, binning=rule)
    torch.testing.assert_close(
        shuffled, upo_loss(p_hat, o, w, num_bins=num_bins, binning=rule), **EXACT
    )


@given(SEEDS, st.floats(-5, 5))
@settings(max_examples=10)
def test_the_loss_is_homogeneous_in_the_weight(seed, c):
    p_hat, _, _, _, o, w = draw(seed)
    torch.testing.assert_close(upo_loss(p_hat, o, c * w), abs(c) * upo_loss(p_hat, o, w), **EXACT)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_no_weight_or_no_beta_leaves_the_gradient_of_the_cross_entropy(beta):
    _, _, _, _, o, w = draw(0)
    w = w if beta == 0 else 0 * w
    logit = torch.randn(R, N, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    plain = torch.autograd.grad(cross_entropy(logit, o).mean(-1).sum(), logit)[0]
    total = cross_entropy(logit, o).mean(-1) + beta * upo_loss(torch.sigmoid(logit), o, w)
    assert torch.equal(torch.autograd.grad(total.sum(), logit)[0], plain)


@every_rule
def test_the_gradient_is_minus_the_sign_of_the_residual_times_the_weight(rule):
    p_hat, _, _, _, o, w = draw(0)
    p_hat.requires_grad_()
    index = bin_index(p_hat, 5, rule)
    residuals = bin_residuals(p_hat, o, w, index, 5).detach()
    (grad,) = torch.autograd.grad(upo_loss(p_hat, o, w, num_bins=5, binning=rule).sum(), p_hat)
    torch.testing.assert_close(grad, -residuals.sign().gather(-1, index) * w / N, **EXACT)
    inputs = (p_hat.detach().requires_grad_(), w.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, v: binned_upo_loss(p, o, v, index, 5), inputs)


@pytest.mark.parametrize("rule", ["equal_width"])
@pytest.mark.parametrize("num_bins", [1, 2, 3, 7, 10, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_width_bins_are_right_closed(rule, num_bins, dtype):
    m = torch.arange(num_bins + 1)
    border = m.to(dtype) / num_bins
    # p * M is rounded to its nearest whole number at the borders themselves
    assert torch.equal(bin_index(border, num_bins, rule), (m - 1).clamp(min=0))
    step = 4 * torch.finfo(dtype).eps  # beyond the rounding of p * M
    assert torch.equal(bin_index(border * (1 - step), num_bins, rule), (m - 1).clamp(min=0))
    above = bin_index((border + step).clamp(max=1), num_bins, rule)
    assert torch.equal(above, m.clamp(max=num_bins - 1))
    inside = (m[:-1].to(dtype) + 0.5) / num_bins
    assert torch.equal(bin_index(inside, num_bins, rule), m[:-1])
    assert torch.equal(bin_index(inside, num_bins, rule), equal_width_bins(inside, num_bins))


def test_sparse_propensities_share_the_first_equal_width_bin():
    """Why the paper's stated rule degenerates to M = 1 on sparse data."""
    p_hat, _, _, _, o, w = draw(0)
    sparse = 0.1 * p_hat
    wide = upo_loss(sparse, o, w, num_bins=10, binning="equal_width")
    torch.testing.assert_close(wide, upo_loss(sparse, o, w, num_bins=1), **EXACT)
    assert (upo_loss(sparse, o, w, num_bins=10, binning="equal_mass") > wide + 1e-3).all()


@every_rule
def test_empty_bins_add_nothing(rule):
    p_hat = torch.tensor([[0.2, 0.2, 0.9, 0.9]])
    o, w = torch.tensor([[0.0, 1.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 2.0, -1.0]])
    # |0.8 - 0.2| + |0.2 - 0.1| over 4; float32 rounding
    value = upo_loss(p_hat, o, w, num_bins=10, binning=rule)
    torch.testing.assert_close(value, torch.tensor([0.7 / 4]), rtol=0, atol=1e-6)


def test_equal_propensities_are_one_bin():
    o, w = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, -2.0, 0.5])
    p_hat = torch.full((3,), 0.4)
    torch.testing.assert_close(upo_loss(p_hat, o, w, num_bins=5), upo_loss(p_hat, o, w, num_bins=1))


@every_rule
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certain_propensities_stay_finite(rule, value):
    p_hat = torch.full((1, 4), value, requires_grad=True)
    o = torch.tensor([[0, 1, 1, 0]])
    loss = upo_loss(p_hat, o, 1.0, binning=rule)
    (grad,) = torch.autograd.grad(loss.sum(), p_hat)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(grad).all()


def test_residuals_at_the_true_propensity_have_mean_zero():
    """Every pattern of o enumerated; a wrong propensity is seen."""
    g = torch.Generator().manual_seed(0)
    p = torch.rand(1, 8, generator=g, dtype=torch.float64)
    w = torch.randn(1, 8, generator=g, dtype=torch.float64)
    index = bin_index(p, 3, "equal_mass")
    patterns = torch.tensor(list(product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    chance = torch.where(patterns > 0, p, 1 - p).prod(-1, keepdim=True)

    def mean(p_hat):
        rows = [x.expand(256, -1) for x in (p_hat, w, index)]
        return (chance * bin_residuals(rows[0], patterns, rows[1], rows[2], 3)).sum(0)

    assert mean(p).abs().max() < 1e-12  # float64 rounding of 256 terms
    assert mean(0.5 * p).abs().max() > 0.1
    assert mean(torch.sigmoid(p)).abs().max() > 0.1  # a double sigmoid


def test_at_the_true_propensity_the_loss_shrinks_with_the_root_of_the_data():
    """Theorem 1: E L <= sum_m sqrt(sum_Bm w^2 p (1 - p)) / |D|; four times the data halves it."""
    g = torch.Generator().manual_seed(0)
    means = []
    for n in (1000, 4000):
        p = torch.rand(400, n, generator=g, dtype=torch.float64) * 0.2
        o, w = torch.bernoulli(p, generator=g), torch.tanh(20 * p - 2)
        index = equal_width_bins(5 * p, 5)
        losses = binned_upo_loss(p, o, w, index, 5)
        variance = torch.zeros(400, 5, dtype=torch.float64).scatter_add(
            -1, index, w**2 * p * (1 - p)
        )
        bound = variance.sqrt().sum(-1).mean() / n
        # the mean of 400 losses has a relative standard error of 2 %; E|S| = 0.8 sd, so this holds
        # with a margin of ten standard errors
        assert losses.mean() < bound
        means.append(losses.mean())
    assert means[1] / means[0] == pytest.approx(0.5, abs=0.075)  # five standard errors of 3 %


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p_min", [1e-6, 0.05, torch.tensor([[0.05], [0.2]])])
def test_clipped_propensities_divide_safely_from_both_sides(dtype, p_min):
    raw = torch.tensor([[0.0, 0.1, 0.5, 1.0]] * 2, dtype=dtype)
    p_hat = clip_propensity(raw, p_min)
    assert p_hat.dtype == dtype
    assert torch.isfinite(1 / p_hat).all()
    assert torch.isfinite(1 / (1 - p_hat)).all()
    floor = torch.as_tensor(p_min, dtype=dtype).expand(2, 1)
    assert torch.equal(p_hat, raw.clamp(max=P_MAX).clamp(min=floor))
    assert torch.equal(p_hat[:, 2], raw[:, 2])


def share_left(p, c):
    w = 1 / p.clamp(min=c)
    return float(w.mean().square() / w.square().mean())


@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
@pytest.mark.parametrize("spread", [0.5, 1.5, 3.0])
def test_the_clip_by_sample_size_leaves_that_share_and_no_lower_one_does(share, spread):
    g = torch.Generator().manual_seed(3)
    p = torch.sigmoid(spread * torch.randn(5000, generator=g, dtype=torch.float64) - 4)
    c = sample_size_clip(p, share)
    if share_left(p, float(p.min())) >= share:
        assert c == 0.0
    else:
        assert share_left(p, c) == pytest.approx(share, abs=1e-5)
        assert share_left(p, c * (1 - 1e-3)) < share
    # a clip in other units is the same clip
    assert sample_size_clip(p / 8, share) == pytest.approx(c / 8, rel=1e-5)


@pytest.mark.parametrize("p", [[0.2], [0.2, 0.2], [1.0, 1.0]])
def test_equal_propensities_need_no_clip(p):
    assert sample_size_clip(torch.tensor(p), 0.8) == 0.0


def test_the_gradient_of_the_clip():
    raw = torch.tensor([[0.01, 0.3, 0.7, 1.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(clip_propensity(raw, 0.05).sum(), raw)
    assert grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_bins_carry_no_gradient():
    p_hat = torch.rand(1, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for rule in RULES:
        assert not bin_index(p_hat, 3, rule).requires_grad


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [({"num_bins": 0}, "num_bins"), ({"binning": "quantile"}, "binning")],
)
def test_wrong_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        upo_loss(torch.rand(4), torch.ones(4), 1.0, **kwargs)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        upo_loss(torch.rand(2, 4), torch.ones(4), 1.0)
    with pytest.raises(ValueError, match="one shape"):
        upo_loss(torch.rand(4), torch.ones(4), torch.ones(3))


def test_sigmoid_has_the_slope_of_the_sigmoid_and_no_nan():
    x = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sigmoid, x)
    torch.testing.assert_close(sigmoid(x), torch.sigmoid(x))
    extreme = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    p_hat = sigmoid(extreme)
    p_hat.sum().backward()
    assert p_hat.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert extreme.grad.tolist() == [0.0] * 4


@pytest.mark.parametrize("width", [15, 100, 300])
def test_equal_logits_have_equal_probabilities_wherever_they_stand(width):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 1, generator=g).expand(-1, width)
    p_hat = torch.stack([sigmoid(row.contiguous()) for row in rows])
    assert torch.equal(p_hat, p_hat[:, :1].expand_as(p_hat))
