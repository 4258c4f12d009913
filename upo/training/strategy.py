"""The launch strategy of several processes, whose sums are those of ``upo.core.distributed``."""

import atexit

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy


class ExactStrategy(DDPStrategy):
    """DDP's launcher and process group without its averaging.

    ``DistributedDataParallel`` averages gradients of per-rank mean losses, which is not the
    gradient of a loss of global sums, and its reducer does not take several backward passes a step.
    """

    def setup_environment(self) -> None:
        """Join the group, and leave it before the interpreter goes.

        Threads of a gloo group that is left to the end of the process may abort it there.
        """
        super().setup_environment()
        atexit.register(_leave_group)

    def configure_ddp(self) -> None:
        """Leave the module unwrapped: learners sum gradients themselves."""


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
