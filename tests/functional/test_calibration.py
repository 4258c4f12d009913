import pytest
import torch

from upo.functional.binning import equal_width_bins
from upo.functional.calibration import (
    case_control_loss,
    looked_ahead,
    mixture_logit,
    public_soft_ece,
    soft_bins,
    soft_ece,
)
from upo.functional.diagnostics import ece
from upo.functional.pointwise import cross_entropy

# double-precision derivatives by central differences
gradcheck = torch.autograd.gradcheck


def draws(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def test_a_mixture_is_the_weighted_mean_of_probabilities():
    z, w = 3 * draws(2, 5, 4), torch.softmax(draws(2, 1, 4, seed=1), dim=-1)
    expected = (w * torch.sigmoid(z)).sum(-1)
    torch.testing.assert_close(torch.sigmoid(mixture_logit(z, w.log())), expected)


def test_one_member_is_itself_and_extremes_are_finite():
    z = torch.tensor([[[-500.0], [0.3], [500.0]]], dtype=torch.float64)
    torch.testing.assert_close(mixture_logit(z, torch.zeros(1)), z.squeeze(-1))
    z = torch.tensor([[500.0, -500.0]], requires_grad=True)
    mixed = mixture_logit(z, torch.tensor([0.5, 0.5]).log())
    mixed.sum().backward()
    assert mixed.abs().item() < 1e-5
    assert torch.isfinite(z.grad).all()


def test_soft_ece_of_hard_bins_is_the_ece_and_public_code_has_n_over_bins_of_it():
    p, n, m = torch.sigmoid(draws(3, 60)), 60, 10
    o = (draws(3, 60, seed=1) > 0).double()
    index = equal_width_bins(p, m)
    hard = torch.nn.functional.one_hot(index, m).double()
    error = soft_ece(p, o, hard)
    torch.testing.assert_close(error, ece(p, o, index, m))
    public = torch.stack([(hard * (o - p)[..., None])[..., b].sum(-1).abs() for b in range(m)])
    torch.testing.assert_close(public.mean(0), error * n / m)


def test_soft_bins_share_every_pair_out():
    z = torch.tensor([[-1e9, -3.0, 0.0, 3.0, 1e9]])
    s = soft_bins(z, 5, middle=0.0, span=3.0)
    torch.testing.assert_close(s.sum(-1), torch.ones(1, 5))
    assert s.argmax(-1)[0, 1:4].tolist() == [0, 2, 4]
    assert torch.equal(soft_bins(z, 1, 0.0, 3.0), torch.ones(1, 5, 1))


def test_the_known_rate_undoes_sampling_by_outcome():
    g = torch.Generator().manual_seed(0)
    logit = torch.randn(1, 400_000, generator=g, dtype=torch.float64) - 3
    o = torch.rand(logit.shape, generator=g) < torch.sigmoid(logit)
    density = o.double().mean().item()
    positive = logit[o][None]
    negative = logit[~o][None, ::40]
    shift = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    loss = case_control_loss(
        positive + shift,
        torch.ones_like(positive),
        negative + shift,
        torch.ones_like(negative),
        density,
    )
    (slope,) = torch.autograd.grad(loss.sum(), shift)
    (wrong,) = torch.autograd.grad(
        case_control_loss(
            positive + shift,
            torch.ones_like(positive),
            negative + shift,
            torch.ones_like(negative),
            positive.shape[-1] / (positive.shape[-1] + negative.shape[-1]),  # the sample's
        ).sum(),
        shift,
    )
    # the true logits are the optimum, up to the noise of 10,000 negatives
    assert slope.abs().item() < 0.01
    assert wrong.abs().item() > 0.2


def test_left_out_pairs_do_not_matter_and_none_at_all_is_zero():
    z_o, z_d = draws(2, 4), draws(2, 6, seed=1)
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0]).double().expand(2, -1)
    loss = case_control_loss(z_o, keep, z_d, torch.ones(2, 6).double(), 0.4)
    z_o[:, 1] = 1e3
    again = case_control_loss(z_o, keep, z_d, torch.ones(2, 6).double(), 0.4)
    torch.testing.assert_close(loss, again)
    nothing = case_control_loss(z_o, 0 * keep, z_d, torch.zeros(2, 6).double(), 0.4)
    assert torch.equal(nothing, torch.zeros(2).double())


def test_looking_ahead_is_one_gradient_step():
    alpha = draws(2, 3).requires_grad_()
    z, o = draws(2, 40, 3, seed=1), (draws(2, 40, seed=2) > 0).double()
    logit = mixture_logit(z, torch.log_softmax(alpha, -1)[:, None])
    (slope,) = torch.autograd.grad(cross_entropy(logit, o).mean(-1).sum(), alpha)
    torch.testing.assert_close(looked_ahead(alpha, z, o, 0.7), alpha - 0.7 * slope)
    torch.testing.assert_close(looked_ahead(alpha, z, o, 0.0), alpha)


@pytest.mark.parametrize("extreme", [-200.0, 200.0])
def test_looking_ahead_is_finite_at_certain_propensities(extreme):
    z = torch.full((1, 8, 2), extreme, requires_grad=True)
    for o in (torch.zeros(1, 8), torch.ones(1, 8)):
        step = looked_ahead(torch.zeros(1, 2), z, o, 0.1)
        (slope,) = torch.autograd.grad(step.sum(), z)
        assert torch.isfinite(step).all()
        assert torch.isfinite(slope).all()


def test_gradients_agree_with_finite_differences():
    z, o = draws(1, 6, 2), (draws(1, 6, seed=1) > 0).double()
    w = torch.log_softmax(draws(1, 1, 2, seed=2), -1)
    assert gradcheck(lambda x: mixture_logit(x, w), z.requires_grad_())
    assert gradcheck(lambda x: looked_ahead(w[:, 0], x, o, 0.5), z)
    y = draws(1, 6, seed=3).requires_grad_()

    def error(x):
        return soft_ece(torch.sigmoid(x), o, soft_bins(x, 4, 0.0, 2.0), o + 0.5)

    assert gradcheck(error, y)
    assert gradcheck(lambda x: case_control_loss(x, o + 0.5, -x, 1.5 - o, 0.3), y)


def test_the_public_dece_with_hard_bins_is_the_ece_times_n_over_m():
    n, m = 40, 5
    p, o = torch.rand(2, n, dtype=torch.float64), torch.bernoulli(torch.full((2, n), 0.4))
    hard = torch.nn.functional.one_hot(equal_width_bins(p, m), m).to(p.dtype)
    torch.testing.assert_close(public_soft_ece(p, o.double(), hard), soft_ece(p, o, hard) * n / m)


def test_the_public_dece_of_imputations_mixes_units():
    p, e, w = torch.rand(3, 2, 30, dtype=torch.float64).clamp(min=0.1)
    s = torch.softmax(draws(2, 30, 4), dim=-1)
    expected = 0.0
    for k in range(4):  # transcribed bin by bin
        share = s[..., k]
        expected = expected + ((share * e).sum(-1) / (1 / w).sum(-1) - (share * p).sum(-1)).abs()
    got = public_soft_ece(p, e, s, (1 / w).sum(-1))
    torch.testing.assert_close(got, expected / 4)
    # with the batch twice, the mass of errors per weight stays and that of pseudo-labels doubles
    twice = [torch.cat([x, x], 1) for x in (p, e, w, s)]
    grown = public_soft_ece(*twice[:2], twice[3], (1 / twice[2]).sum(-1))
    assert (grown > 1.5 * got).all()


def test_the_public_dece_has_the_right_gradient():
    p, e = torch.rand(2, 1, 6, dtype=torch.float64, requires_grad=True)
    s = torch.softmax(draws(1, 6, 3), dim=-1)
    assert gradcheck(lambda p, e: public_soft_ece(p, e, s, torch.tensor([7.0])), (p, e))
