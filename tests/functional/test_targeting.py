import pytest
import torch

from upo.functional.prediction import dr_loss
from upo.functional.targeting import clever_covariate, error_fluctuation, label_fluctuation


def world(seed=0, replicas=3, n=200):
    g = torch.Generator().manual_seed(seed)
    e, e_hat, u = torch.rand(3, replicas, n, generator=g, dtype=torch.float64)
    p_hat = 0.05 + 0.95 * torch.rand(replicas, n, generator=g, dtype=torch.float64)
    observed = (u < p_hat)[:1].expand(replicas, -1)
    return e, e_hat, p_hat, observed


def on_observed(x, observed):
    return x[observed].view(x.shape[0], -1)


def test_the_targeted_errors_meet_the_score_and_the_eib_identity():
    e, e_hat, p_hat, observed = world()
    h = clever_covariate(p_hat)
    e_o, hat_o, h_o = (on_observed(x, observed) for x in (e, e_hat, h))
    epsilon = error_fluctuation(e_o, hat_o, h_o)
    tilde = e_hat + epsilon[:, None] * h
    tilde_o = on_observed(tilde, observed)
    residual = (h_o * (e_o - tilde_o)).sum(-1)
    torch.testing.assert_close(residual, torch.zeros(3).double(), rtol=0, atol=1e-10)
    p_o = on_observed(p_hat, observed)
    loss = dr_loss(e_o, tilde_o, p_o, tilde, p_o.shape[-1] / p_hat.shape[-1])
    eib = torch.where(observed, e, tilde).mean(-1)
    torch.testing.assert_close(loss, eib, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_label_score_vanishes(seed):
    _, _, p_hat, observed = world(seed)
    g = torch.Generator().manual_seed(seed)
    logit = 3 * torch.randn(p_hat.shape, generator=g, dtype=torch.float64)
    label = (torch.rand(p_hat.shape, generator=g) < 0.3).double()
    h = clever_covariate(p_hat)
    h_o, z_o, r_o = (on_observed(x, observed) for x in (h, logit, label))
    epsilon = label_fluctuation(r_o, z_o, h_o)
    assert (epsilon.abs() < 4).all()
    score = (h_o * (r_o - torch.sigmoid(z_o + epsilon[:, None] * h_o))).sum(-1)
    torch.testing.assert_close(score, torch.zeros(3).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("label", "bound"), [(1.0, 2.0), (0.0, -2.0)])
def test_labels_all_alike_end_at_the_bound(label, bound):
    h = torch.tensor([[1.0, 3.0, 19.0]])
    r = torch.full_like(h, label)
    epsilon = label_fluctuation(r, torch.zeros_like(h), h, limit=2.0)
    assert torch.isfinite(epsilon).all()
    # a saturated sigmoid leaves no score, so the bound may be met only so far
    assert (epsilon.sign() == torch.tensor(bound).sign()).all()
    assert (epsilon.abs() <= 2.0).all()
    assert ((r - torch.sigmoid(epsilon[:, None] * h)).abs() < 0.2).all()


@pytest.mark.parametrize("certain", [1.0, 1.0 - 1e-6])
def test_certain_observation_leaves_the_imputation_alone(certain):
    h = clever_covariate(torch.full((2, 50), certain))
    ones, zeros = torch.ones_like(h), torch.zeros_like(h)
    assert torch.equal(error_fluctuation(ones, zeros, h), torch.zeros(2))
    assert torch.equal(label_fluctuation(ones, zeros, h), torch.zeros(2))


def test_the_right_pseudo_labels_are_left_alone():
    h = torch.tensor([[1.0, 2.0, 1.0, 2.0]])
    label = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    epsilon = label_fluctuation(label, torch.zeros_like(h), h)
    # the score is exactly 0 at 0
    assert epsilon.abs().max() < 1e-12
