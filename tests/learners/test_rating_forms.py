"""Doubly robust losses of ratings: form B is form A of the pseudo-rating f + g, and is unbiased."""

from itertools import product

import pytest
import torch

from upo.functional.prediction import dr_loss
from upo.models.imputation import PseudoRating, ResidualRating

CELLS = 6


def numbers(seed=3):
    g = torch.Generator().manual_seed(seed)
    f, r, g_out = torch.randn(3, 1, CELLS, generator=g, dtype=torch.float64)
    p = torch.rand(1, CELLS, generator=g, dtype=torch.float64).clamp(0.2, 0.9)
    return f.requires_grad_(), r, g_out, p


def test_form_b_has_the_errors_and_gradients_of_the_pseudo_rating():
    f, _, g, _ = numbers()
    residual = ResidualRating().imputed(f, g)
    pseudo = PseudoRating().imputed(f, (f + g).detach())
    torch.testing.assert_close(residual, pseudo)
    torch.testing.assert_close(
        *(torch.autograd.grad(e.sum(), f, retain_graph=True)[0] for e in (residual, pseudo))
    )


def test_a_right_residual_gives_the_error_and_its_gradient():
    f, r, _, _ = numbers()
    form = ResidualRating()
    e_hat, e = form.imputed(f, (r - f).detach()), form.error(f, r)
    torch.testing.assert_close(e_hat, e)
    torch.testing.assert_close(
        *(torch.autograd.grad(x.sum(), f, retain_graph=True)[0] for x in (e_hat, e))
    )


@pytest.mark.parametrize("form", [PseudoRating(), ResidualRating()], ids=lambda f: type(f).__name__)
def test_the_loss_and_its_gradient_are_unbiased_at_the_true_propensity(form):
    """Every pattern of o is enumerated; mean over them of DR is the mean error over D."""
    f, r, g, p = numbers()
    e, e_hat = form.error(f, r), form.imputed(f, g)
    total = torch.zeros(1, dtype=torch.float64)
    for pattern in product([False, True], repeat=CELLS):
        o = torch.tensor([pattern])
        chance = torch.where(o, p, 1 - p).prod()
        # a batch of all of D, and of O: its rows count by how many there are
        if o.any():
            rows = (x[o][None] for x in (e, e_hat, p))
            value = dr_loss(*rows, e_hat, float(o.sum()) / CELLS)
        else:
            value = e_hat.mean(-1)
        total = total + chance * value
    torch.testing.assert_close(total, e.mean(-1), rtol=0, atol=1e-12)  # float64 rounding
    torch.testing.assert_close(
        *(torch.autograd.grad(x.sum(), f, retain_graph=True)[0] for x in (total, e.mean(-1))),
        rtol=0,
        atol=1e-12,
    )


def test_the_residual_is_what_imputation_is_fitted_to():
    f, r, g, _ = numbers()
    wanted, fit = ResidualRating().regression(f, r, g)
    torch.testing.assert_close(wanted, r - f)
    assert fit is g
