"""Every part of the audit of a table of propensities, under one error rate."""

from typing import Any

import numpy as np
import pandas as pd

from upo.audit.adversary import Attack, attacks
from upo.audit.advice import ADVICE, reasons
from upo.audit.balance import balance
from upo.audit.calibration import RULES, Calibration, calibration
from upo.audit.inference import holm
from upo.audit.pairs import AuditPairs
from upo.audit.segments import SINGLE, p_text, segment_counts, segmentations, sentence, single
from upo.audit.weights import clip_table, weight_summary

# How the error rate is divided between the families of tests; Holm's procedure within each.
SHARES = {"segment": 0.5, "single": 0.25, "calibration": 0.125, "balance": 0.125}


class Findings:
    """What an audit found: its tables and its verdict.

    With probability at least ``1 - alpha`` nothing at all is found where the propensities are
    correct and the rows' o independent (up to the saddle-point approximation of the weighted sums
    and the simulation of the ECE).

    Attributes:
        findings: Segments where the propensities are wrong, by falling |z|: ``sentence, kind,
            where, rows, observed, expected, rows_observed, rows_expected, difference, z, p_value,
            p_adjusted``.
        tests: All tests of segments, found or not, with the same columns but the sentence.
        calibration: A row for each bin rule: ``rule, ece, null_mean, null_95, debiased, p_value,
            p_adjusted``.
        balance: A row for each feature, by falling |z|: ``feature, before, after, standard_error,
            z, p_value, p_adjusted``.
        adversary: A row for each adversary: ``adversary, gain, standard_error, p_value,
            p_adjusted``, measured on the half that it was not trained on.
        weights: The tail of the weights of the observed pairs.
        clips: A row for each clip of the propensities.
        alpha: Family-wise error rate of everything found.
    """

    def __init__(
        self, pairs: AuditPairs, *, alpha: float, p_min: float | None, num_bins: int, seed: int
    ) -> None:
        self.pairs, self.alpha, self.p_min = pairs, alpha, p_min
        self.num_bins, self.seed = num_bins, seed
        named = list(segmentations(pairs, num_bins))
        self.attacks: list[Attack] = list(attacks(pairs, named, num_bins=num_bins, seed=seed))
        segments = [segment_counts(pairs, s, kind="segment") for s in named]
        segments += [attack.tests for attack in self.attacks]
        singles = [segment_counts(pairs, s, kind="single", least=SINGLE) for s in single(pairs)]
        where = pd.concat(segments, ignore_index=True)
        alone = pd.concat(singles, ignore_index=True)
        gains = [attack.p_value for attack in self.attacks]
        adjusted = _adjusted([*where.p_value, *gains], "segment")
        where["p_adjusted"] = adjusted[: len(where)]
        alone["p_adjusted"] = _adjusted(alone.p_value, "single")
        self.tests = pd.concat([where, alone], ignore_index=True)
        found = self.tests[self.tests.p_adjusted <= alpha]
        found = found.iloc[np.argsort(-found.z.abs().to_numpy(), kind="stable")]
        found = found.reset_index(drop=True)
        found.insert(0, "sentence", [sentence(row) for row in found.itertuples()])
        self.findings = found
        self.adversary = pd.DataFrame(
            {
                "adversary": [attack.name for attack in self.attacks],
                "gain": [attack.gain for attack in self.attacks],
                "standard_error": [attack.standard_error for attack in self.attacks],
                "p_value": gains,
                "p_adjusted": adjusted[len(where) :],
            }
        )
        self.bins: list[Calibration] = [calibration(pairs, r, num_bins, seed) for r in RULES]
        names = ["rule", "ece", "null_mean", "null_95", "debiased", "p_value"]
        self.calibration = pd.DataFrame([[getattr(b, n) for n in names] for b in self.bins])
        self.calibration.columns = pd.Index(names)
        self.calibration["p_adjusted"] = _adjusted(self.calibration.p_value, "calibration")
        table = balance(pairs)
        table["p_adjusted"] = _adjusted(table.p_value, "balance")
        order = np.argsort(-table.z.abs().to_numpy(), kind="stable")
        self.balance = table.iloc[order].reset_index(drop=True)
        self.weights, self.clips = weight_summary(pairs), clip_table(pairs, p_min)

    @property
    def n_found(self) -> int:
        """How many tests of any kind reject; 0 with probability 1 - alpha if nothing is wrong."""
        tables = (self.findings, self.calibration, self.balance, self.adversary)
        return int(sum((table.p_adjusted <= self.alpha).sum() for table in tables))

    @property
    def verdict(self) -> str:
        """The whole audit in a sentence."""
        if not self.n_found:
            return (
                "Nothing was found: the table is compatible with correct propensities (error rate "
                f"{self.alpha:g} over all tests)."
            )
        parts = []
        if len(self.findings):
            n = len(self.findings)
            parts.append(f"are wrong in {n} segment{'s' * (n > 1)}")
        for table, name in (
            (self.calibration, "are miscalibrated over the bins"),
            (self.balance, "leave features unbalanced"),
            (self.adversary, "are predictably wrong on held-out pairs"),
        ):
            if (table.p_adjusted <= self.alpha).any():
                parts.append(name)
        return f"The propensities {', '.join(parts)} (error rate {self.alpha:g} in all)."

    @property
    def next_steps(self) -> list[str]:
        """What to do about what was found, each with the call that does it."""
        others = {
            name: bool((table.p_adjusted <= self.alpha).any())
            for name, table in (
                ("calibration", self.calibration),
                ("balance", self.balance),
                ("adversary", self.adversary),
            )
        }
        keys = reasons(self.findings, others, self.weights["top_1_percent_share"])
        return [f"{ADVICE[key][0]}: {ADVICE[key][1]}." for key in keys]

    def summary(self, count: int = 10) -> str:
        """The verdict, the worst findings and the main figures, as text."""
        lines = [self.verdict]
        lines += [f"{k + 1:3}. {text}" for k, text in enumerate(self.findings.sentence[:count])]
        if len(self.findings) > count:
            lines.append(f"     and {len(self.findings) - count} more")
        for bins, p in zip(self.bins, self.calibration.p_adjusted.tolist(), strict=True):
            lines.append(
                f"ECE, {bins.rule} bins: {bins.ece:.4f}; correct propensities give "
                f"{bins.null_mean:.4f}, in 95 % at most {bins.null_95:.4f}; adjusted p {p_text(p)}"
            )
        for row in self.balance.head(1).to_dict("records"):
            lines.append(
                f"least balanced: {row['feature']}, {row['after']:+.3f} sd (null error "
                f"{row['standard_error']:.3f}), adjusted p {p_text(row['p_adjusted'])}"
            )
        size, seen = self.weights["effective_sample_size"], self.weights["observed"]
        lines.append(
            f"effective sample size {size:,.0f} of {seen:,.0f} observed; largest weight "
            f"{self.weights['max']:,.1f}"
        )
        return "\n".join([*lines, *self.next_steps, *self.pairs.notes])


def _adjusted(p_values: Any, family: str) -> Any:  # [K] -> [K]
    """Holm's within the family, then for the family's share of the error rate."""
    return np.minimum(1.0, holm(p_values) / SHARES[family])
