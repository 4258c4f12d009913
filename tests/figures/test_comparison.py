import numpy as np
import pytest

from upo.figures import grouped_bars, line_panels

METHODS = ["naive", "ips", "dr_jl", "mrdr_jl", "dr_v2", "dce_dr", "upo_ips", "upo_dr"]
METRICS = ["ECE", "BMSE", "DR bias", "DR variance"]


def test_paper_figure(rng, check):
    shape = (4, 5, 8)
    mean = rng.uniform(0.3, 1, shape) * np.array([0.2, 6, 0.03, 2e-4]).reshape(4, 1, 1)
    mean[1, 2, 3] = np.nan
    groups = [f"p = {p}" for p in (0.3, 0.4, 0.5, 0.6, 0.7)]
    figure = grouped_bars(
        groups,
        METHODS,
        mean,
        0.1 * mean,
        panels=METRICS,
        log=[False, True, False, True],
        highlight="upo_dr",
        title="ML-100K: propensity diagnostics",
    )
    check(figure, *METHODS, *groups, "BMSE (log)", "DR variance (log)", "ML-100K")


@pytest.mark.parametrize("log", [False, True])
def test_one_panel_many_rows(rng, check, log):
    rows = [f"estimator_{k}" for k in range(23)]
    mean = rng.uniform(0.6, 0.8, (2, 23))
    mean[1, 4] = 0
    figure = grouped_bars(["Coat", "Yahoo! R3"], rows, mean, panels=["AUC"], log=log)
    check(figure, "Coat", "estimator_22", "AUC")


def test_nothing_positive_on_a_log_axis_and_nothing_at_all(check):
    check(grouped_bars(["a"], ["m"], [[-1.0]], [[0.2]], panels=["bias"], log=True), "bias")
    check(grouped_bars(["a"], ["m"], [[np.nan]], panels=["AUC"], log=True), "AUC")


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_sensitivity(rng, check, log_x, panels):
    x = [0, 0.01, 0.1, 0.5, 1, 5, 10]
    series = {
        name: (rng.uniform(0.70, 0.75, (panels, 7)), np.full((panels, 7), 0.004))
        for name in METHODS[-3:]
    }
    series["naive"] = (np.full((panels, 7), 0.72), None)
    names = ["AUC", "NDCG@5", "F1@5", "ECE"][:panels]
    figure = line_panels(
        x, series, names, xlabel=r"$\beta$ (weight of UPO)", log_x=log_x, mark=0.5, title="Coat"
    )
    check(figure, *names, "upo_dr", "in use: 0.5", "weight of UPO")


def test_zero_alone_on_a_log_axis_and_missing_values(check):
    figure = line_panels([0.0], {"a": ([0.5], None)}, ["AUC"], xlabel="x", log_x=True, mark=0)
    check(figure, "AUC")
    figure = line_panels([1, 2, 3], {"a": ([0.5, np.nan, 0.6], None)}, ["AUC"], xlabel="bins")
    check(figure, "bins")


def test_wrong_input():
    with pytest.raises(ValueError, match="mean needs the shape"):
        grouped_bars(["a"], ["m"], [[1.0, 2.0]], panels=["AUC"])
    with pytest.raises(ValueError, match="one flag per panel"):
        grouped_bars(["a"], ["m"], [[1.0]], panels=["AUC"], log=[True, False])
    with pytest.raises(ValueError, match="increasing x"):
        line_panels([-1, 1], {}, ["AUC"], xlabel="x", log_x=True)
