import numpy as np
import pytest

from upo.figures import reliability_diagram
from upo.figures.reliability import axis_scale


def bins(rng, replicas, edges, n):
    """Counts, predicted and observed means of propensities that are a tenth too small."""
    low, high = edges[:-1], edges[1:]
    count = rng.multinomial(n, rng.dirichlet(np.ones(len(low))), size=replicas).astype(float)
    p_hat = np.broadcast_to((low + high) / 2, count.shape)
    true = np.clip(1.1 * p_hat + rng.normal(0, 0.02 * p_hat.mean(), count.shape), 0, 1)
    observed = rng.binomial(count.astype(int), true) / np.where(count > 0, count, np.nan)
    return low, high, np.where(count > 0, p_hat, np.nan), observed, count


@pytest.mark.parametrize("replicas", [1, 10])
def test_linear(rng, check, replicas):
    low, high, *rest = bins(rng, replicas, np.linspace(0, 1, 11), 4000)
    ece = rng.normal(0.03, 0.004, replicas)
    figure = reliability_diagram(low, high, *rest, title="Coat, upo_dr: reliability", ece=ece)
    check(figure, "Coat, upo_dr: reliability", "ECE 0.0", "observed rate", "perfect calibration")
    assert figure.axes[0].get_xscale() == "linear"


@pytest.mark.parametrize("replicas", [1, 10])
def test_tiny_propensities_take_log_axes(rng, check, replicas):
    low, high, *rest = bins(rng, replicas, np.geomspace(2e-3, 0.4, 11), 3_000_000)
    rest[2][:] = np.geomspace(1_000_000, 20_000, 10)  # most pairs are hardly ever rated
    edges = [np.tile(low, (replicas, 1)), np.tile(high, (replicas, 1))]  # equal mass: per replica
    figure = reliability_diagram(*edges, *rest, title="Yahoo! R3: reliability")
    check(figure, "log axes")
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_a_bin_without_observations_takes_root_axes(rng, check):
    low, high, p_hat, observed, count = bins(rng, 3, np.linspace(0, 0.3, 11) ** 1.5, 20_000)
    count[:] = np.geomspace(4000, 10, 10)
    observed[:, 0] = 0
    observed[:, 4], p_hat[:, 4], count[:, 4] = np.nan, np.nan, 0
    figure = reliability_diagram(low, high, p_hat, observed, count, title="Sparse", ece=0.004)
    check(figure, "sqrt axes", "3 replicas")


def test_one_bin_only_and_none(check):
    edges = np.linspace(0, 1, 6)
    nothing = np.full(5, np.nan)
    for count in (np.zeros(5), np.array([90, 0, 0, 0, 0])):
        means = np.where(count > 0, 0.02, nothing)
        figure = reliability_diagram(edges[:-1], edges[1:], means, means, count, title="Few")
        check(figure, f"{count.sum():.0f} pairs")


def test_points_are_pooled_by_count(check):
    one = np.array([[0.3], [0.3]])
    rate, count = np.array([[0.2], [0.5]]), np.array([[100.0], [300.0]])
    figure = reliability_diagram([0.0], [1.0], one, rate, count, title="Pooled")
    lines = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(lines.get_ydata(), 0.425, rtol=1e-12)


def test_scale_ignores_empty_bins():
    values = np.array([0.02, np.nan])
    assert axis_scale(values, values, np.array([5.0, 0.0])) == "log"


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="of one shape"):
        reliability_diagram([0], [1], [0.5], [0.5, 0.5], [1], title="")
    with pytest.raises(ValueError, match="edges of 2 bins"):
        reliability_diagram([0], [1], [0.5, 0.5], [0.5, 0.5], [1, 1], title="")
