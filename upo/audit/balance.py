"""Does inverse weighting balance the features: the BMSE, feature by feature."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from upo.audit.inference import weighted_sum_tail
from upo.audit.pairs import AuditPairs
from upo.audit.segments import mean_by

Floats = NDArray[np.float64]


def feature_columns(pairs: AuditPairs) -> Iterator[tuple[str, Floats]]:
    """Names and values ``[N]``: functions of the propensity, numbers, an indicator per label."""
    yield "propensity", pairs.p
    yield "mean propensity of the user", mean_by(pairs.users, pairs.p)
    yield "mean propensity of the item", mean_by(pairs.items, pairs.p)
    for column in pairs.columns:
        if column.labels is None:
            yield column.name, column.values
            continue
        for code, label in enumerate(column.labels):
            yield f"{column.name}={label}", (column.values == code).astype(np.float64)


def balance(pairs: AuditPairs) -> pd.DataFrame:
    r"""Imbalance of each standardised feature before and after weighting, with its null error.

    .. math:: \frac{1}{|D|} \sum_D \Bigl(\frac{o}{\hat p} - \frac{1 - o}{1 - \hat p}\Bigr) \phi

    in standard deviations of the feature over D: the difference between what the observed and the
    unobserved pairs, each weighted, say of its mean. Its expectation is 0 at the true propensities;
    the sum of its squares over the features is their BMSE.

    Rows that the propensities settle (``AuditPairs.settled``) are left out of the weighted
    difference and of its error, where each would have a weight that empties the test of all others.
    That one of them is otherwise has a chance of 1 in 1,000 at most, and adds it to the error rate.

    Source: Zheng et al., UPO, AAAI 2026 (BMSE); Imai and Ratkovic, "Covariate balancing propensity
    score", JRSS B 76 (2014), 243-263; Austin, Statistics in Medicine 28 (2009), 3083-3107
    (standardised differences and their plot); Crump et al., "Dealing with limited overlap in
    estimation of average treatment effects", Biometrika 96 (2009), 187-199 (leaving out what one
    kind of pairs cannot show).

    Returns:
        A row for each feature that varies: ``feature, before`` (observed less unobserved mean),
        ``after, standard_error`` (at correct propensities), ``z, p_value``.
    """
    w, o = pairs.weight, pairs.observed
    residual = pairs.observed - pairs.q
    per_row = pairs.scale / (pairs.p * (1 - pairs.p)) / pairs.total
    per_row[pairs.settled] = 0.0
    seen, unseen = w * o / (w * o).sum(), w * (1 - o) / (w * (1 - o)).sum()
    rows = []
    for name, values in feature_columns(pairs):
        mean = float((w * values).sum()) / pairs.total
        sd = float(np.sqrt((w * (values - mean) ** 2).sum() / pairs.total))
        if not sd > 1e-12 * max(1.0, abs(mean)):
            continue
        phi = (values - mean) / sd
        c = per_row * phi
        after = float((c * residual).sum())
        sign = 1.0 if after > 0 else -1.0
        error = float(np.sqrt((c * c * pairs.variance).sum()))
        rows.append(
            {
                "feature": name,
                "before": float(((seen - unseen) * phi).sum()),
                "after": after,
                "standard_error": error,
                "z": after / error if error else 0.0,
                "p_value": min(1.0, 2 * weighted_sum_tail(sign * c, pairs.q, abs(after))),
            }
        )
    names = ["feature", "before", "after", "standard_error", "z", "p_value"]
    return pd.DataFrame(rows, columns=names)
