import numpy as np
import pytest

from upo.figures import worst_bin_residuals


def shrinking(rng, steps, shape):
    size = 0.01 + 0.2 * np.exp(-np.arange(steps) / (steps / 5))
    return size.reshape(-1, *[1] * len(shape)) * rng.normal(0, 1, (steps, *shape))


@pytest.mark.parametrize("shape", [(10,), (8, 30)], ids=["one", "replicas"])
@pytest.mark.parametrize("steps", [25, 120])
def test_draws(rng, check, shape, steps):
    residuals = shrinking(rng, steps, shape)
    residuals[..., 2] = np.nan
    edges = np.geomspace(0.004, 0.6, shape[-1] + 1)
    figure = worst_bin_residuals(
        np.arange(steps) * 200,
        residuals,
        title="Coat, upo_dr: residuals by propensity bin",
        bin_edges=edges if shape == (10,) else None,
    )
    check(figure, "Coat, upo_dr", "worst bin", "training step", "mean residual", "propensity bin")


def test_one_validation_all_empty_and_a_given_worst_bin(check):
    check(worst_bin_residuals([100], np.full((1, 4), np.nan), title="Empty"), "training step")
    figure = worst_bin_residuals([1, 2], [[0.1, 0.2], [0.3, -0.1]], worst=[0, 1], title="Given")
    check(figure, "worst bin")
    marks = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(marks, [1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [2, 1]}, "increasing steps"),
        ({"worst": [1]}, "one bin per step"),
        ({"bin_edges": [0, 1]}, "needs 4 values"),
    ],
)
def test_wrong_input(change, message):
    given = {"steps": [1, 2], "residuals": np.zeros((2, 3)), "title": ""} | change
    with pytest.raises(ValueError, match=message):
        worst_bin_residuals(**given)
