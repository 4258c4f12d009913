import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upo.functional.pointwise import cross_entropy, squared_error
from upo.models.imputation import DirectError, PseudoLabel, Residual

LOGITS, UNIT = st.floats(-30, 30), st.floats(0, 1)
# float64; log(1 - f) written out loses 1e-16 / (1 - f), which is 1e-3 at a logit of 30
OPEN = st.floats(-15, 15)


def loop_cross_entropy(f, t):
    return -t * math.log(f) - (1 - t) * math.log(1 - f)


def double(*values):
    return tuple(torch.tensor([v], dtype=torch.float64) for v in values)


@given(OPEN, UNIT)
def test_values_match_the_definitions(logit, target):
    f = 1 / (1 + math.exp(-logit))
    x, t = double(logit, target)
    # 1 - f is known to 1e-16, so its logarithm to 1e-16 / exp(-15) = 4e-10
    assert cross_entropy(x, t).item() == pytest.approx(loop_cross_entropy(f, target), abs=1e-9)
    assert squared_error(x, t).item() == pytest.approx((f - target) ** 2, abs=1e-14)


@given(LOGITS, LOGITS, st.sampled_from([0.0, 1.0]))
def test_the_gap_of_a_pseudo_label_is_its_residual_times_the_logit(f_logit, g_logit, r):
    """Form A: e - e_hat = (y - r) logit(f)."""
    f, g, label = double(f_logit, g_logit, r)
    form, y = PseudoLabel(), torch.sigmoid(g)
    gap = form.error(f, label) - form.imputed(f, g)
    # float64 rounding of terms up to 30
    torch.testing.assert_close(gap, (y - label) * f, rtol=0, atol=1e-13)


def test_swapped_arguments_are_another_function():
    """Public imputation losses compute CE(y, f): the identity above fails for it."""
    f_logit, g_logit, label = double(2.0, -1.0, 1.0)
    f, y = torch.sigmoid(f_logit), torch.sigmoid(g_logit)
    right = PseudoLabel().imputed(f_logit, g_logit)
    swapped = cross_entropy(g_logit, f)
    assert right.item() == pytest.approx(loop_cross_entropy(f.item(), y.item()), abs=1e-12)
    assert swapped.item() == pytest.approx(loop_cross_entropy(y.item(), f.item()), abs=1e-12)
    assert abs((right - swapped).item()) > 0.3
    e = PseudoLabel().error(f_logit, label)
    assert abs((e - swapped - (y - label) * f_logit).item()) > 0.3


def test_a_logit_taken_for_a_probability_is_another_function():
    """A double sigmoid confines the prediction to (0.5, 0.731)."""
    logits, label = torch.linspace(-8, 8, 50, dtype=torch.float64), torch.zeros(50).double()
    twice = torch.sigmoid(logits)
    assert cross_entropy(logits, label).min() < 0.001
    assert cross_entropy(twice, label).min() > math.log(2)


@pytest.mark.parametrize("logit", [0.0, 100.0, -100.0, 1e4, -1e4])
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_predictions_stay_finite(loss, logit, target, dtype):
    x = torch.tensor(logit, dtype=dtype, requires_grad=True)
    value = loss(x, torch.tensor(target, dtype=dtype))
    (grad,) = torch.autograd.grad(value, x)
    assert torch.isfinite(value)
    assert torch.isfinite(grad)
    assert value >= 0


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_gradients_in_both_arguments(loss):
    g = torch.Generator().manual_seed(0)
    logit = (4 * torch.randn(2, 5, generator=g, dtype=torch.float64)).requires_grad_()
    target = torch.rand(2, 5, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(loss, (logit, target))


@pytest.mark.parametrize(
    "form", [PseudoLabel(), DirectError(), Residual()], ids=lambda f: type(f).__name__
)
def test_gradients_of_imputed_errors(form):
    g = torch.Generator().manual_seed(0)
    f, h = (torch.randn(2, 5, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    if isinstance(form, Residual):  # its f - sg(f) is 0 by value: only g can be checked so
        assert torch.autograd.gradcheck(lambda x: form.imputed(f.detach(), x), (h,))
    else:
        assert torch.autograd.gradcheck(form.imputed, (f, h))
    assert (form.imputed(f, h) >= 0).all()


def test_a_right_residual_gives_the_error_and_its_gradient():
    """Form B: with g = r - f, value and gradient are those of (r - f)^2."""
    f_logit = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    label = (torch.arange(9) % 2).double()
    g_logit = torch.atanh(label - torch.sigmoid(f_logit.detach()))
    e, e_hat = Residual().error(f_logit, label), Residual().imputed(f_logit, g_logit)
    torch.testing.assert_close(e_hat, e, rtol=0, atol=1e-14)
    slopes = [torch.autograd.grad(x.sum(), f_logit)[0] for x in (e, e_hat)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-14)


def test_a_right_pseudo_label_gives_the_error_and_its_gradient():
    f_logit = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    label = (torch.arange(9) % 2).double()
    sure = (2 * label - 1) * 100  # sigmoid(100) is 1 in float64
    e, e_hat = PseudoLabel().error(f_logit, label), PseudoLabel().imputed(f_logit, sure)
    torch.testing.assert_close(e_hat, e, rtol=0, atol=1e-14)
    slopes = [torch.autograd.grad(x.sum(), f_logit)[0] for x in (e, e_hat)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-14)


def test_a_direct_error_is_free_of_the_prediction():
    f = torch.zeros(3, requires_grad=True)
    assert not DirectError().imputed(f, torch.ones(3)).requires_grad
