"""Stage 1: the propensity-adversary minimax game (Algorithm 1 of UPO, lines 7-13)."""

from typing import Any

import torch
from torch import Tensor

from upo.errors import InputError
from upo.evaluation.held_cells import HeldCells
from upo.functional.propensity import bin_residuals
from upo.learners.propensity import adversary_weight
from upo.pairs import Pairs, sampled_pairs
from upo.training.stage import StageModule

PROBE_PAIRS = 65536


class PropensityModule(StageModule):
    """Trains the propensity; validation measures it on a fixed sample of D.

    Logged at each validation: where the plan holds cells out, the cross-entropy on them, which
    chooses the epoch of each replica unless the plan says ``last``; with an adversary, the residual
    of each bin as the adversary weighs it.

    A game gives cross-entropy away for balance, so it keeps its last epoch: its least
    cross-entropy is near its start, before there was a game.

    Args:
        **stage: See ``StageModule``.

    Raises:
        InputError: If the plan holds cells out of a D that is too small for it.
    """

    monitor = "cross_entropy"
    residuals: Tensor | None = None  # [R, M] mean weighted residual of each bin, last validation

    def __init__(self, **stage: Any) -> None:
        super().__init__(**stage)
        if self.plan.select and self.estimator.space.n_held_cells < 1:
            raise InputError(
                f"estimator.stages.{self.stage}.select holds a tenth of D out, and D has "
                f"{self.estimator.space.n_pairs} pairs only; set it to false."
            )
        self._held: HeldCells | None = None
        self._probe: Pairs | None = None

    def changed(self) -> None:
        self._held = self._probe = self.residuals = None

    def judge(self) -> None:
        """Measure on the held-out cells, where there are any; says which epoch to keep."""
        if not self.plan.select:
            return
        if self._held is None:
            self._held = HeldCells(self.estimator.space)
        value = self._held.cross_entropy(self.estimator)
        self.epoch_logs[f"{self.stage}/val/{self.monitor}"] = value
        if self.plan.select is True:
            self.selection = value

    def validation_step(self, *_: Any) -> None:
        """Measure on the held-out cells and on the probe."""
        self.judge()
        if self.plan.select:
            name = f"{self.stage}/val/{self.monitor}"
            self._show(name, self.epoch_logs[name])
        if "adversary" not in self.estimator.networks:
            return
        if self._probe is None:
            self._probe = sampled_pairs(self.estimator.space, "probe", PROBE_PAIRS)
        pairs, bins = self._probe, self.estimator.bins
        with torch.no_grad():
            p_hat = self.estimator.propensity(pairs)
            sizes = torch.full((1,), float(pairs.total), device=p_hat.device)
            weight = adversary_weight(self.estimator, pairs)
            index = bins.index(p_hat)
            sums = bin_residuals(p_hat, pairs.o, weight, index, bins.num_bins)
            self.residuals = sums / sizes
            self._show(*self._worst())
        pairs.memo.clear()  # its features are large

    def logged(self) -> dict[str, Tensor]:
        """With the worst bin of the last validation."""
        return self.epoch_logs | ({} if self.residuals is None else dict([self._worst()]))

    def _worst(self) -> tuple[str, Tensor]:
        assert self.residuals is not None  # set by a validation with an adversary
        return f"{self.stage}/val/worst_bin", self.residuals.abs().amax(-1)
