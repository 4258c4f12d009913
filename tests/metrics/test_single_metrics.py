"""What is particular to one metric."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from metric_cases import make_data

from upo.functional.binning import equal_mass_edges
from upo.metrics import (
    AUC,
    NDCG,
    BalancedMeanSquaredError,
    DRBias,
    DRVariance,
    ExpectedCalibrationError,
    F1AtK,
    LogLoss,
    MeanSquaredError,
    PrecisionAtK,
    RecallAtK,
    SeveralAtK,
)


def test_ece_keeps_no_rows_unless_it_must():
    data = make_data()
    fixed = ExpectedCalibrationError(
        4, binning="equal_mass", edges=equal_mass_edges(data["p_hat"], 4)
    )
    free = ExpectedCalibrationError(4, binning="equal_mass")
    for metric in (fixed, free):
        metric.update(data["p_hat"], data["o"])
    assert torch.equal(fixed.compute(), free.compute())
    assert fixed.weight.shape == (3, 4)
    assert not any(isinstance(state, list) for state in fixed.metric_state.values())


def test_equal_mass_bins_do_not_depend_on_the_type_of_p_hat():
    p_hat = make_data()["p_hat"].float()
    o = make_data()["o"]
    values = []
    for p in (p_hat, p_hat.double()):
        metric = ExpectedCalibrationError(4, binning="equal_mass")
        metric.update(p, o)
        values.append(metric.compute())
    assert torch.equal(*values)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_reliability_diagram(binning):
    data = make_data()
    metric = ExpectedCalibrationError(5, binning=binning)
    metric.update(data["p_hat"], data["o"])
    points = metric.reliability()
    assert points.weight.sum(-1).tolist() == [40.0] * 3
    gap = (points.weight * (points.observed - points.p_hat)).nan_to_num(0).abs().sum(-1) / 40
    torch.testing.assert_close(gap, metric.compute(), rtol=0, atol=1e-12)
    figure, ax = metric.plot()
    assert len(ax.lines) == 4  # three replicas and the diagonal
    x, y = (torch.as_tensor(values) for values in ax.lines[0].get_data())
    assert torch.equal(x, points.p_hat[0][points.weight[0] > 0])
    assert torch.equal(y, points.observed[0][points.weight[0] > 0])
    assert ax.get_legend_handles_labels()[1][0] == f"replica 0, ECE {metric.compute()[0]:.4f}"
    assert metric.plot(ax=ax) == (figure, ax)
    plt.close(figure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 0}, "num_bins must be at least 1, got 0"),
        ({"binning": "quantile"}, "binning must be one of .*, got 'quantile'"),
        ({"num_bins": 2, "edges": [0.5]}, "equal-width bins have none"),
        ({"num_bins": 3, "binning": "equal_mass", "edges": [0.5]}, r"need the shape \[2\]"),
        ({"num_bins": 3, "binning": "equal_mass", "edges": [0.5, 0.4]}, "must ascend"),
        ({"num_bins": 2, "binning": "equal_mass", "edges": [math.nan]}, "edges must be finite"),
        (
            {"num_bins": 2, "binning": "equal_mass", "edges": [[0.1], [0.2]], "replicas": 3},
            "edges are for 2 replicas, not for 3",
        ),
    ],
)
def test_wrong_options_of_ece(options, message):
    with pytest.raises(ValueError, match=message):
        ExpectedCalibrationError(**options)


def test_edges_per_replica_need_that_many_replicas():
    metric = ExpectedCalibrationError(2, binning="equal_mass", edges=torch.rand(2, 1))
    with pytest.raises(ValueError, match=r"holds inputs of 2 replicas.* of 3 replicas"):
        metric.update(make_data()["p_hat"], make_data()["o"])


def test_bmse_terms_that_are_infinite_are_refused():
    metric = BalancedMeanSquaredError()
    for p_hat, observed in [(0.0, 1), (1.0, 0)]:
        with pytest.raises(ValueError, match="clip p_hat on both sides"):
            metric.update(torch.tensor([p_hat]), torch.tensor([observed]), torch.ones(1, 2))
    metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 0]]), torch.ones(2, 3))
    assert metric.compute().tolist() == [0.0]


def test_bmse_features():
    data = make_data()
    metric = BalancedMeanSquaredError()
    with pytest.raises(ValueError, match=r"features.unsqueeze\(-1\)"):
        metric.update(data["p_hat"][0], data["o"][0], data["e"][0])
    metric.update(data["p_hat"], data["o"], data["features"][0])  # shared by the replicas
    with pytest.raises(ValueError, match=r"with 4 features and cannot add .* with 2 features"):
        metric.update(data["p_hat"], data["o"], data["features"][..., :2])
    with pytest.raises(ValueError, match="features must be finite, got nan"):
        metric.update(data["p_hat"], data["o"], data["features"] * math.nan)
    every = BalancedMeanSquaredError()
    every.update(data["p_hat"], data["o"], data["features"][:1].expand(3, -1, -1))
    torch.testing.assert_close(metric.compute(), every.compute(), rtol=0, atol=1e-12)


HALF, ONE = torch.full((2,), 0.5), torch.ones(2)


@pytest.mark.parametrize(
    ("metric", "args", "message"),
    [
        (ExpectedCalibrationError, (3 * ONE, ONE), "p_hat must lie in .* not logits.*, got 3"),
        (ExpectedCalibrationError, (-HALF, ONE), "p_hat must lie in .*, got -0.5"),
        (ExpectedCalibrationError, (HALF, HALF), "observed must be 0 or 1, got 0.5"),
        (ExpectedCalibrationError, (HALF, ONE, -ONE), "weight must be finite and at least 0"),
        (ExpectedCalibrationError, (HALF, ONE, ONE / 0), "weight must be finite"),
        (DRBias, (0 * ONE, ONE, ONE, ONE), r"p_hat must lie in \(0, 1\]; clip it from below"),
        (DRBias, (HALF, 2 * ONE, ONE, ONE), "propensity_or_observed must lie in"),
        (DRBias, (HALF, ONE, ONE, ONE / 0), "imputed_error must be finite, got inf"),
        (DRVariance, (HALF, 2 * ONE, ONE, ONE), "propensity must lie in"),
        (DRVariance, (HALF, ONE, ONE / 0, ONE), "error must be finite, got inf"),
        (LogLoss, (2 * ONE, ONE), r"probabilities must lie .*\(2 of 2 values are wrong\)"),
        (LogLoss, (HALF, 2 * ONE), "labels must lie in"),
        (MeanSquaredError, (ONE / 0, ONE), "predictions must be finite"),
        (AUC, (HALF, 5 * ONE), "labels must be 0 or 1, got 5"),
        (AUC, (HALF, ONE, HALF), "include must be 0 or 1, got 0.5"),
    ],
)
def test_values_out_of_range_are_refused(metric, args, message):
    with pytest.raises(ValueError, match=f"{metric.__name__}.*{message}"):
        metric().update(*args)


@pytest.mark.parametrize("metric", [NDCG, PrecisionAtK, RecallAtK, F1AtK])
def test_wrong_arguments_of_ranking_metrics(metric):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        metric(0)
    for users in (torch.zeros(3).long(), torch.zeros(2), torch.zeros(1, 2).long()):
        with pytest.raises(ValueError, match=r"users as integers of shape \(2,\)"):
            metric(5).update(HALF, ONE, users)
    with pytest.raises(ValueError, match=r"'skip'.*, got 'zero'"):
        NDCG(5, no_positives="zero")


def test_the_two_conventions_of_ndcg():
    data = make_data()
    values = []
    for convention in ("one", "skip"):
        metric = NDCG(3, no_positives=convention)
        metric.update(data["scores"], data["y"], data["users"])
        values.append(metric.compute())
    s = 1 / 7  # one of the seven users has no positive
    torch.testing.assert_close(values[1], (values[0] - s) / (1 - s), rtol=0, atol=1e-12)


def test_auc_of_a_replica_without_a_class_is_nan():
    data = make_data()
    labels = torch.stack([data["y"], torch.ones_like(data["y"]), data["y"]])
    metric = AUC()
    metric.update(data["scores"], labels)
    assert metric.compute().isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saturated_wrong_probability_costs_a_finite_loss(dtype):
    metric = LogLoss()
    metric.update(torch.tensor([0.0, 1.0], dtype=dtype), torch.tensor([1, 0]))
    expected = -math.log(torch.finfo(dtype).eps)
    # 1 - eps is rounded to the type before the logarithm
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


def test_soft_labels_have_a_log_loss():
    metric = LogLoss()
    metric.update(torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.25]).double())
    expected = -0.25 * math.log(0.3) - 0.75 * math.log(0.7)
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


def test_several_ranking_metrics_of_one_pass_are_each_of_them():
    g = torch.Generator().manual_seed(4)
    users, labels = torch.randint(0, 9, (60,), generator=g), torch.randint(0, 2, (60,), generator=g)
    scores, kinds = torch.rand(3, 60, generator=g), [NDCG, PrecisionAtK, RecallAtK, F1AtK]
    together, apart = SeveralAtK([kind(2) for kind in kinds]), [kind(2) for kind in kinds]
    for part in (slice(0, 25), slice(25, 60)):
        for metric in (together, *apart):
            metric.update(scores[:, part], labels[part], users[part])
    assert together.compute().shape == (4, 3)
    assert torch.equal(together.compute(), torch.stack([metric.compute() for metric in apart]))
    flat = SeveralAtK([NDCG(2), F1AtK(2)])
    flat.update(scores[0], labels, users)
    assert flat.compute().shape == (2,)
