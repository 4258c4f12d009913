"""Stage 2: debiased prediction and imputation (Algorithm 1 of UPO, lines 14-21)."""

from typing import Any

import torch

from upo.errors import InputError
from upo.evaluation.protocols import Protocol
from upo.training.stage import StageModule


class DebiasingModule(StageModule):
    """Trains prediction and imputation with the learned propensities, and selects epochs.

    With a joint schedule the players of the propensity are learners of this stage too.

    Args:
        protocol: Says on what data an epoch is judged.
        **stage: See ``StageModule``.

    Raises:
        InputError: If the plan says how a propensity chooses its epoch.
    """

    def __init__(self, *, protocol: Protocol, **stage: Any) -> None:
        super().__init__(**stage)
        if self.plan.select:
            raise InputError(
                f"estimator.stages.{self.stage}.select is for stages of module propensity; this "
                "one chooses its epoch under the protocol: leave it out."
            )
        self.protocol = protocol
        self.monitor = protocol.monitor

    def validation_step(self, *_: Any) -> None:
        """Judge the current parameters under the protocol."""
        with torch.no_grad():
            values = self.protocol.validate(self.estimator)
        self.selection = self.protocol.sign * values[self.protocol.monitor]
        for name, value in values.items():
            self.epoch_logs[f"{self.stage}/val/{name}"] = value
            if name == self.protocol.monitor:
                self._show(f"{self.stage}/val/{name}", value)
