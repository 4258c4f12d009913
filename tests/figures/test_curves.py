import numpy as np
import pytest

from upo.figures import CurvePanel, curve_panels, curves


def falling(rng, steps, replicas, start=1.0, end=0.3):
    mean = end + (start - end) * np.exp(-4 * steps / steps[-1])
    return mean[:, None] + rng.normal(0, 0.02, (len(steps), replicas)).cumsum(0) / 4


@pytest.mark.parametrize("replicas", [1, 10, 64])
def test_panels(rng, check, replicas):
    steps, epochs = np.arange(0, 6000, 20), np.arange(0, 6000, 240)
    prediction = falling(rng, steps, replicas)
    best = rng.choice(epochs[8:], replicas)
    for r in range(replicas):
        prediction[steps > best[r] + 500, r] = np.nan  # stopped early
    figure = curve_panels(
        [
            CurvePanel(
                steps,
                {"prediction": prediction, "imputation": falling(rng, steps, replicas, 0.8, 0.5)},
                "loss",
                title="losses",
            ),
            CurvePanel(epochs, {"validation": falling(rng, epochs, replicas)}, "log-loss", best),
        ],
        title="Coat, dr_jl: training",
    )
    check(figure, "Coat, dr_jl: training", "prediction", "imputation", "log-loss", "kept step")


def test_one_panel_of_flat_series_missing_values_and_one_step(check):
    check(
        curves([1, 2, 3], {"a": [0.3, np.nan, 0.2]}, title="One", ylabel="loss", best=np.nan), "a"
    )
    check(curves([5], {"a": [[0.3, 0.4]]}, title="Point", ylabel="loss", best=[5, 5]), "median")


def test_band_is_one_sd_over_replicas():
    figure = curves([0, 1], {"a": [[1.0, 3.0], [2.0, 2.0]]}, title="", ylabel="")
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(2 + 2**0.5)


def test_a_stopped_replica_keeps_its_last_value():
    figure = curves([0, 1], {"a": [[1.0, 3.0], [2.0, np.nan]]}, title="", ylabel="")
    mean = figure.axes[0].lines[-1].get_ydata()
    np.testing.assert_array_equal(mean, [2.0, 2.5])


def test_wrong_input():
    with pytest.raises(ValueError, match="one row per step"):
        curves([1, 2], {"a": [1.0]}, title="", ylabel="")
    with pytest.raises(ValueError, match="at least one"):
        curve_panels([], title="")
