"""The columns of measured values: what they are called, and which way they are better."""

from torchmetrics import Metric

from upo.metrics.diagnostics import (
    BalancedMeanSquaredError,
    DRBias,
    DRVariance,
    ExpectedCalibrationError,
)
from upo.metrics.pointwise import LogLoss, MeanSquaredError
from upo.metrics.ranking import AUC, NDCG, F1AtK, PerUserMetric, PrecisionAtK, RecallAtK

RANKING: dict[str, type[Metric]] = {"auc": AUC}
AT_K: dict[str, type[PerUserMetric]] = {
    "ndcg": NDCG,
    "f1": F1AtK,
    "precision": PrecisionAtK,
    "recall": RecallAtK,
}
POINTWISE: dict[str, type[Metric]] = {"log_loss": LogLoss, "mse": MeanSquaredError}
DIAGNOSTICS: dict[str, type[Metric]] = {
    "ece": ExpectedCalibrationError,
    "bmse": BalancedMeanSquaredError,
    "dr_bias": DRBias,
    "dr_variance": DRVariance,
}
DIAGNOSED = tuple(DIAGNOSTICS)
DEFINITIONS = {"correct": "", "table1_compat": "_table1"}  # of these, and what ends their columns
COMPAT = DEFINITIONS["table1_compat"]
# beside the model's figures: of the constant prediction, on validation rows, and of the weights
WORTH = (
    "constant_log_loss",
    "constant_mse",
    "val_log_loss",
    "val_constant_log_loss",
    "val_gain_error",
    "clip_share",
    "effective_sample_size",
)
# of propensities on held-out cells, and what correct ones would have there
HELD = ("held_ece", "held_bmse", "held_ece_floor", "held_bmse_floor")
CATALOGUE = "catalogue_recall"  # @K
# metric -> the constant prediction's value, or the column that holds it
CONSTANT: dict[str, float | str] = {
    "auc": 0.5,
    "log_loss": "constant_log_loss",
    "mse": "constant_mse",
    "val_log_loss": "val_constant_log_loss",
}


def measured_on_test(k: int) -> list[str]:
    """Columns of what is measured on the test set, with the cutoff of the ranking metrics."""
    return [*RANKING, *(f"{name}@{k}" for name in AT_K), *POINTWISE]


def lower_is_better(column: str) -> bool:
    """Whether a smaller value of a result column is better; False for a column not known here."""
    name = column.split("@")[0].removeprefix("held_").removesuffix("_error").removesuffix(COMPAT)
    metric = {**RANKING, **AT_K, **POINTWISE, **DIAGNOSTICS}.get(name)
    return metric is not None and metric.higher_is_better is False
