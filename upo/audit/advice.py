"""What to do about what an audit found, with the call that does it."""

from collections.abc import Iterator

import pandas as pd

ADVICE = {
    "level": (
        "Wrong by the size of the propensity",
        'recalibrate: upo.repair("propensity", pairs), or, for a model of upo, fit it with '
        "propensity.calibrate=isotonic",
    ),
    "features": (
        "Wrong by a feature",
        "let the propensity read it: upo.Propensity('fm', calibrate='gbdt').fit(log, "
        "user_features=..., item_features=...), or correct by it: upo.repair(..., features=[...])",
    ),
    "interactions": (
        "Wrong for combinations that no column shows",
        "raise the capacity of the propensity (upo.Propensity('fm') or a larger "
        "estimator.networks.propensity.dim), or, where features have them, correct by trees: "
        "upo.repair(..., features=[...])",
    ),
    "single": (
        "Wrong for single users or items",
        "lower the penalty of the propensity (estimator.fit.penalty.rows), or correct by what was "
        "observed of them in other folds: upo.repair",
    ),
    "weights": (
        "Few pairs carry most of the weight",
        "clip: estimator.weighting.p_min=0.1 (of the density), or p_min= here to see what it does",
    ),
}
LARGE = 0.5  # share of the weights in the largest hundredth that is worth a clip


def reasons(findings: pd.DataFrame, others: dict[str, bool], largest: float) -> Iterator[str]:
    """Keys of ``ADVICE`` that apply, each once.

    Args:
        findings: Of the audit.
        others: Whether the families ``calibration``, ``balance`` and ``adversary`` found anything.
        largest: Share of the weights of the largest hundredth of the observed pairs.
    """
    where, kind = findings["where"].astype(str), findings["kind"]
    size = where.str.contains("propensity", regex=False) | (where == "all pairs")
    named = kind == "segment"
    if others["calibration"] or (named & size).any():
        yield "level"
    if (named & ~size).any() or others["balance"]:
        yield "features"
    if others["adversary"] or (~named & (kind != "single")).any():
        yield "interactions"
    if (kind == "single").any():
        yield "single"
    if largest > LARGE:
        yield "weights"
