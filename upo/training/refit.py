"""The last stages once more, on rows that were held out too, for the epochs that were selected."""

from typing import Any

from torch import Tensor

from upo.training.debiasing import DebiasingModule

SUFFIX = "_refit"  # of the names of such stages, and of their checkpoints


class RefitModule(DebiasingModule):
    """Trains each replica for its own number of epochs, and keeps the last of them.

    Nothing is validated: every row trains. A replica leaves the stack after its last epoch.

    Args:
        lengths: ``[R]`` epochs of each replica, at least 1.
        **debiasing: See ``DebiasingModule``; a patience of 1 ends a replica after its last epoch.
    """

    def __init__(self, *, lengths: Tensor, **debiasing: Any) -> None:
        super().__init__(**debiasing)
        self.lengths = lengths
        self.monitor = "epochs_left"

    def validation_step(self, *_: Any) -> None:
        """The nearest epoch to a replica's last one is its choice: that one, in the end."""
        lengths = self.lengths[self.members].to(self.device)
        self.selection = (lengths - 1 - self.epoch).abs().double()
