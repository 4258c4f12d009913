from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upo.functional import balancing
from upo.functional.prediction import snips_loss
from upo.functional.propensity import clip_propensity

EXACT = {"rtol": 0.0, "atol": 1e-12}  # float64 rounding is all that is left
SEEDS = st.integers(0, 2**31 - 1)


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@given(seed=SEEDS)
def test_bmse_has_mean_zero_at_the_true_propensity(seed):
    p, phi = 0.1 + 0.8 * draw(seed, 2, 1, 6)
    expected = sum(
        torch.where(o, p, 1 - p).prod() * balancing.bmse_loss(p, o.double(), phi)
        for o in map(torch.tensor, product([False, True], repeat=6))
    )
    # every pattern is enumerated: of the expected square only the variance of the mean remains
    variance = (phi**2 / (p * (1 - p))).sum(-1) / 6**2
    torch.testing.assert_close(expected, variance, **EXACT)


@given(seed=SEEDS)
def test_the_unbiased_bmse_is_the_square_of_the_mean(seed):
    p, p_hat, phi = 0.1 + 0.8 * draw(seed, 3, 1, 6)
    # every pattern is enumerated: only float64 rounding is left
    values = []
    for o in map(torch.tensor, product([False, True], repeat=6)):
        chance = torch.where(o, p, 1 - p).prod()
        values.append(chance * balancing.bmse_loss(p_hat, o.double(), phi, unbiased=True))
    h = (p / p_hat - (1 - p) / (1 - p_hat)) * phi  # means of independent draws
    exact = (h.sum(-1) ** 2 - (h**2).sum(-1)) / (6 * 5)
    torch.testing.assert_close(sum(values), exact, **EXACT)


@given(seed=SEEDS)
def test_the_unbiased_bmse_has_mean_zero_at_the_true_propensity(seed):
    p, phi = 0.1 + 0.8 * draw(seed, 2, 1, 6)
    expected = sum(
        torch.where(o, p, 1 - p).prod() * balancing.bmse_loss(p, o.double(), phi, unbiased=True)
        for o in map(torch.tensor, product([False, True], repeat=6))
    )
    torch.testing.assert_close(expected, torch.zeros_like(expected), **EXACT)


@pytest.mark.parametrize("size", [0, 1])
def test_a_batch_too_small_for_a_square_has_none(size):
    batch = torch.full((2, size), 0.5)
    loss = balancing.bmse_loss(batch, torch.ones_like(batch), batch, unbiased=True)
    torch.testing.assert_close(loss, torch.zeros(2))


@given(seed=SEEDS)
def test_bmse_ignores_the_sign_of_the_feature(seed):
    p_hat, phi, draws = 0.1 + 0.8 * draw(seed, 3, 2, 9)
    o = (draws < 0.5).double()
    torch.testing.assert_close(
        balancing.bmse_loss(p_hat, o, phi), balancing.bmse_loss(p_hat, o, -phi), **EXACT
    )


@given(seed=SEEDS)
def test_joint_cross_entropy_is_that_of_the_product(seed):
    a, b, t = 6 * draw(seed, 3, 2, 9) - 3
    t = (t > 0).double()
    both = torch.sigmoid(a) * torch.sigmoid(b)
    expected = -t * both.log() - (1 - t) * (1 - both).log()
    torch.testing.assert_close(balancing.joint_cross_entropy(a, b, t), expected)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("signs", list(product([-500.0, 0.0, 500.0], repeat=2)))
def test_joint_cross_entropy_is_finite_at_saturated_logits(signs, target):
    a, b = (torch.tensor([s], requires_grad=True) for s in signs)
    loss = balancing.joint_cross_entropy(a, b, torch.tensor([target]))
    grads = torch.autograd.grad(loss.sum(), (a, b))
    assert all(torch.isfinite(x).all() for x in (loss, *grads))


@pytest.mark.parametrize("observed", [0.0, 1.0])
def test_bmse_is_finite_where_propensities_are_0_and_1(observed):
    p_hat = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = balancing.bmse_loss(
        clip_propensity(p_hat, 1e-3).clamp(max=1 - 1e-3),
        torch.full((1, 2), observed),
        torch.ones(1, 2),
    )
    (grad,) = torch.autograd.grad(loss.sum(), p_hat)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(grad).all()


@given(seed=SEEDS)
def test_orthogonality_is_the_centred_inverse_propensity_mean(seed):
    p_hat, e_hat, draws = 0.1 + 0.8 * draw(seed, 3, 2, 9)
    o = (draws < 0.5).double()
    centred = e_hat - e_hat.mean(-1, keepdim=True)
    expected = -(o / p_hat * centred).mean(-1)
    torch.testing.assert_close(balancing.orthogonality(p_hat, o, e_hat), expected, **EXACT)


@given(seed=SEEDS)
def test_an_exact_constraint_makes_snips_doubly_robust(seed):
    e, e_hat, p_hat = 0.1 + 0.8 * draw(seed, 3, 1, 12)
    o = (torch.arange(12) % 2 == 0).double()[None]
    # move one observed pair's weight until the constraint holds; its sign does not matter here
    weight, centred = o / p_hat, e_hat - e_hat.mean(-1, keepdim=True)
    at = int((o * centred.abs()).argmax())
    weight[0, at] -= (weight * centred).sum() / centred[0, at]
    if weight.sum().abs() < 0.1 or weight[0, at].abs() < 1e-6:
        return  # the ratio is ill-conditioned
    exact = torch.where(o > 0, 1 / torch.where(o > 0, weight, 1), 1.0)
    torch.testing.assert_close(
        balancing.orthogonality(exact, o, e_hat), torch.zeros(1).double(), rtol=0, atol=1e-9
    )
    rows = o > 0
    e_o, e_hat_o, p_o = (x[rows][None] for x in (e, e_hat, exact))
    expected = e_hat.mean(-1) + snips_loss(e_o - e_hat_o, p_o)
    torch.testing.assert_close(snips_loss(e_o, p_o), expected, rtol=1e-6, atol=1e-6)


@given(seed=SEEDS, c=st.floats(0.1, 10.0))
def test_snips_ignores_the_scale_of_the_propensity(seed, c):
    e, p_hat = 0.1 + 0.8 * draw(seed, 2, 1, 9)
    torch.testing.assert_close(snips_loss(e, c * p_hat), snips_loss(e, p_hat), **EXACT)


@pytest.mark.parametrize("k", [2, 3, 7])
@given(p=st.floats(0.0, 1.0))
def test_the_squared_mean_estimate_is_unbiased(p, k):
    p = torch.tensor(p, dtype=torch.float64)
    successes = torch.arange(k + 1, dtype=torch.float64)
    probability = torch.distributions.Binomial(k, p).log_prob(successes).exp()
    mean = (probability * balancing.squared_mean_estimate(successes / k, k)).sum()
    torch.testing.assert_close(mean, p**2, rtol=0, atol=1e-9)


def test_the_squared_mean_estimate_needs_two_draws():
    with pytest.raises(ValueError, match="at least 2"):
        balancing.squared_mean_estimate(torch.tensor(0.5), 1)


@given(seed=SEEDS)
def test_the_gpl_bias_term_is_the_published_one_without_its_constant(seed):
    p_hat, gap, draws = 0.1 + 0.8 * draw(seed, 3, 1, 9)
    o = (draws < 0.5).double()
    published = ((o - 2 * o * p_hat + p_hat**2) / p_hat**2 * gap**2).mean(-1)
    constant = ((1 - o) * gap**2).mean(-1)
    torch.testing.assert_close(
        balancing.propensity_bias_term(p_hat, o, gap), published - constant, **EXACT
    )


def test_unknown_gaps_are_not_read():
    p_hat, o = torch.tensor([[0.2, 0.5]]), torch.tensor([[1.0, 0.0]])
    gap = torch.tensor([[1.0, torch.nan]])
    assert torch.isfinite(balancing.propensity_bias_term(p_hat, o, gap)).all()
    assert torch.isfinite(balancing.propensity_variance_term(p_hat, o, gap, 2)).all()


@given(seed=SEEDS)
def test_umvue_terms_with_the_truth_bound_bias_and_variance(seed):
    p_hat, gap, q = 0.1 + 0.8 * draw(seed, 3, 1, 9)
    bias, variance = balancing.umvue_terms(p_hat, q, 4, gap)
    q2 = balancing.squared_mean_estimate(q, 4)
    both = (((q - p_hat) ** 2 + q2 - q**2) / p_hat**2 * gap**2).mean(-1)
    torch.testing.assert_close(bias, both, **EXACT)
    torch.testing.assert_close(variance, ((q - q2) * (gap / p_hat) ** 2).mean(-1), **EXACT)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, x: balancing.bmse_loss(p, (x > 0.5).double(), x),
        lambda p, x: balancing.orthogonality(p, (x > 0.5).double(), x),
        lambda p, x: balancing.propensity_bias_term(p, (x > 0.5).double(), x),
        lambda p, x: balancing.propensity_variance_term(p, (x > 0.5).double(), x, 9),
        lambda p, x: sum(balancing.umvue_terms(p, x, 5, x - 0.5)),
        lambda p, x: balancing.joint_cross_entropy(torch.logit(p), x, (x > 0.5).double()),
        lambda p, x: balancing.joint_squared_error(torch.logit(p), x, (x > 0.5).double()),
    ],
    ids=["bmse", "orthogonality", "bias", "variance", "umvue", "joint_ce", "joint_se"],
)
def test_gradients_agree_with_finite_differences(loss):
    p_hat, x = 0.1 + 0.8 * draw(0, 2, 2, 9)
    assert torch.autograd.gradcheck(lambda p: loss(p, x), (p_hat.requires_grad_(),))
