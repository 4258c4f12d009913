"""Metrics of many replicas at once, exact for any batching and any split over devices."""

from upo.metrics.diagnostics import (
    BalancedMeanSquaredError,
    DRBias,
    DRVariance,
    ExpectedCalibrationError,
    Reliability,
)
from upo.metrics.histogram import HistogramCounts, PropensityHistogram
from upo.metrics.per_user import UserValues
from upo.metrics.pointwise import (
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
)
from upo.metrics.ranking import AUC, NDCG, F1AtK, PrecisionAtK, RecallAtK, SeveralAtK

__all__ = [
    "AUC",
    "NDCG",
    "BalancedMeanSquaredError",
    "DRBias",
    "DRVariance",
    "ExpectedCalibrationError",
    "F1AtK",
    "HistogramCounts",
    "LogLoss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PrecisionAtK",
    "PropensityHistogram",
    "RecallAtK",
    "Reliability",
    "RootMeanSquaredError",
    "SeveralAtK",
    "UserValues",
]
