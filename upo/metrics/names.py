"""The columns of measured values: what they are called, and which way they are better."""

from torchmetrics import Metric

from upo.metrics.diagnostics import (
    BalancedMeanSquaredError,
    DRBias,
    DRVariance,
    ExpectedCalibrationError,
)
from upo.metrics.pointwise import (
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
)
from upo.metrics.ranking import AUC, NDCG, F1AtK, PerUserMetric, PrecisionAtK, RecallAtK

RANKING: dict[str, type[Metric]] = {"auc": AUC}
AT_K: dict[str, type[PerUserMetric]] = {
    "ndcg": NDCG,
    "f1": F1AtK,
    "precision": PrecisionAtK,
    "recall": RecallAtK,
}
POINTWISE: dict[str, type[Metric]] = {"log_loss": LogLoss, "mse": MeanSquaredError}
RATED: dict[str, type[Metric]] = {"rmse": RootMeanSquaredError, "mae": MeanAbsoluteError}
POINTWISE_OF = {"positive": POINTWISE, "rating": RATED}  # by what is predicted
JUDGE = {"positive": "log_loss", "rating": "mse"}  # the error by which epochs are judged
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
WEIGHTS = ("clip_share", "effective_sample_size")


def worth(target: str = "positive") -> tuple[str, ...]:
    """Columns of what a run of this target is worth."""
    judge = JUDGE[target]
    constants = (f"constant_{name}" for name in POINTWISE_OF[target])
    return *constants, f"val_{judge}", f"val_constant_{judge}", "val_gain_error", *WEIGHTS


WORTH = tuple(dict.fromkeys(name for target in JUDGE for name in worth(target)))
# of propensities on held-out cells, and what correct ones would have there
HELD = ("held_ece", "held_bmse", "held_ece_floor", "held_bmse_floor")
CATALOGUE = "catalogue_recall"  # @K
# metric -> the constant prediction's value, or the column that holds it
CONSTANT: dict[str, float | str] = {
    "auc": 0.5,
    "log_loss": "constant_log_loss",
    "mse": "constant_mse",
    "rmse": "constant_rmse",
    "mae": "constant_mae",
    "val_log_loss": "val_constant_log_loss",
    "val_mse": "val_constant_mse",
}


def measured_on_test(k: int, target: str = "positive") -> list[str]:
    """Columns of what is measured on the test set, with the cutoff of the ranking metrics."""
    return [*RANKING, *(f"{name}@{k}" for name in AT_K), *POINTWISE_OF[target]]


def lower_is_better(column: str) -> bool:
    """Whether a smaller value of a result column is better; False for a column not known here."""
    name = column.split("@")[0].removeprefix("held_").removesuffix("_error").removesuffix(COMPAT)
    metric = {**RANKING, **AT_K, **POINTWISE, **RATED, **DIAGNOSTICS}.get(name)
    return metric is not None and metric.higher_is_better is False
