"""Every metric with data to feed it, shared by the tests of this folder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from upo.metrics import (
    AUC,
    NDCG,
    BalancedMeanSquaredError,
    DRBias,
    DRVariance,
    ExpectedCalibrationError,
    F1AtK,
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    PrecisionAtK,
    RecallAtK,
    RootMeanSquaredError,
)

R, N, D = 3, 40, 4


@dataclass
class Case:
    metric: type
    inputs: tuple[str, ...]  # names of the data, in the order of update's arguments
    options: dict[str, Any]
    weighted: bool = True  # takes weight; the others take include

    def make(self, **kwargs: Any):
        return self.metric(**self.options, **kwargs)

    def args(self, data: dict[str, Tensor], rows: Any = slice(None)) -> list[Tensor]:
        return [take(data[name], name, rows) for name in self.inputs]


CASES = {
    "ece": Case(ExpectedCalibrationError, ("p_hat", "o"), {}),
    "ece_mass": Case(
        ExpectedCalibrationError, ("p_hat", "o"), {"binning": "equal_mass", "num_bins": 4}
    ),
    "ece_edges": Case(
        ExpectedCalibrationError,
        ("p_hat", "o"),
        {"binning": "equal_mass", "num_bins": 3, "edges": [0.3, 0.5]},
    ),
    "bmse": Case(BalancedMeanSquaredError, ("p_hat", "o", "features"), {}),
    "bias": Case(DRBias, ("p_hat", "o", "e", "e_hat"), {}),
    "variance": Case(DRVariance, ("p_hat", "p", "e", "e_hat"), {}),
    "log_loss": Case(LogLoss, ("p_hat", "o"), {}),
    "mse": Case(MeanSquaredError, ("e", "e_hat"), {}),
    "rmse": Case(RootMeanSquaredError, ("e", "e_hat"), {}),
    "mae": Case(MeanAbsoluteError, ("e", "e_hat"), {}),
    "auc": Case(AUC, ("scores", "y"), {}, weighted=False),
    "ndcg": Case(NDCG, ("scores", "y", "users"), {"k": 3}, weighted=False),
    "ndcg_skip": Case(
        NDCG, ("scores", "y", "users"), {"k": 3, "no_positives": "skip"}, weighted=False
    ),
    "precision": Case(PrecisionAtK, ("scores", "y", "users"), {"k": 3}, weighted=False),
    "recall": Case(RecallAtK, ("scores", "y", "users"), {"k": 3}, weighted=False),
    "f1": Case(F1AtK, ("scores", "y", "users"), {"k": 3}, weighted=False),
}


def make_data(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Rows of R replicas; scores are tied, user 5 has no positive, every user's rows are spread."""
    g = torch.Generator().manual_seed(seed)
    p_hat, p, e, e_hat = torch.rand(4, R, N, generator=g, dtype=dtype).clamp(0.05, 0.95)
    y = torch.randint(0, 2, (N,), generator=g)
    users = torch.arange(N) % 7
    y[users == 5] = 0
    return {
        "p_hat": p_hat,
        "p": p,
        "e": e,
        "e_hat": e_hat,
        "o": torch.bernoulli(p, generator=g).bool(),
        "features": torch.randn(R, N, D, generator=g, dtype=dtype),
        "scores": (p_hat * 10).round(),
        "y": y,
        "users": users,
        "weight": torch.randint(0, 4, (N,), generator=g).to(dtype),
        "include": torch.rand(R, N, generator=g) < 0.8,
    }


def take(x: Tensor, name: str, rows: Any) -> Tensor:
    """Some of the rows."""
    return x[..., rows, :] if name == "features" else x[..., rows]


def replica(data: dict[str, Tensor], r: int) -> dict[str, Tensor]:
    """One replica's data as 1-D inputs."""
    return {name: x[r] if x.ndim > 1 else x for name, x in data.items()}
