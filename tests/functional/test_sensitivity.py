"""The worst weights of a band: against a linear program and by their identities."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from upo.functional.sensitivity import weight_band, worst_weights


def case(seed, n=60):
    g = torch.Generator().manual_seed(seed)
    p_hat = torch.rand(2, n, generator=g, dtype=torch.float64).clamp(0.02, 0.98)
    return p_hat, torch.randn(2, n, generator=g, dtype=torch.float64)


def worst(p_hat, gain, gamma):
    return worst_weights(gain, *weight_band(p_hat, gamma), (1 / p_hat).sum(-1))


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_solve_the_linear_program(seed):
    p_hat, gain = case(seed)
    weight = worst(p_hat, gain, 3.0)
    low, high = weight_band(p_hat, 3.0)
    for r in range(2):
        program = linprog(
            -gain[r].numpy(),
            A_eq=np.ones((1, 60)),
            b_eq=[float((1 / p_hat[r]).sum())],
            bounds=np.stack([low[r].numpy(), high[r].numpy()], axis=1),
        )
        # the solver stops at 1e-7 of a value of the order of a hundred
        assert float(weight[r] @ gain[r]) == pytest.approx(-program.fun, rel=1e-6)


def test_the_band_is_a_factor_of_the_odds():
    p_hat, _ = case(0)
    low, high = weight_band(p_hat, 2.5)
    odds = p_hat / (1 - p_hat)
    for weight, factor in ((low, 2.5), (high, 1 / 2.5)):
        q = 1 / weight
        torch.testing.assert_close(q / (1 - q), odds * factor)


def test_a_factor_of_one_leaves_the_inverse_propensities():
    p_hat, gain = case(1)
    torch.testing.assert_close(worst(p_hat, gain, 1.0), 1 / p_hat)


def test_weights_keep_their_sum_and_the_value_grows_with_the_band():
    p_hat, gain = case(2)
    values = []
    for gamma in (1.0, 1.2, 2.0, 5.0):
        weight = worst(p_hat, gain, gamma)
        torch.testing.assert_close(weight.sum(-1), (1 / p_hat).sum(-1))
        assert (weight >= 1).all()
        values.append((weight * gain).sum(-1))
    for less, more in itertools.pairwise(values):
        assert (more > less).all()


def test_a_band_narrower_than_none_is_refused():
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        weight_band(torch.ones(1, 2), 0.5)
