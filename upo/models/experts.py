"""Calibration experts: several affine maps of a logit, mixed by a gate on the user."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from upo.errors import InputError
from upo.functional.calibration import mixture_logit
from upo.models.derived import Derived
from upo.models.replica import ReplicaLinear, Sizes

if TYPE_CHECKING:
    from upo.estimator import Estimator
    from upo.pairs import Pairs


class CalibrationExperts(Derived):
    r"""Doubly calibrated estimator's post-processor :math:`\sum_n g_n(u)\,\sigma(a_n z+b_n)`.

    The gate is a softmax of an affine map of the source's frozen user embedding. It starts at the
    source's own logit (a = 1, b = 0), and weight decay of the parameters (a - 1, b and the gate's)
    draws it back there, which matters where the fold is small.

    Source: Kweon, Yu, "Doubly calibrated estimator for recommendation on data missing not at
    random", WWW 2024. Differs: no Gumbel noise, so the same pair always gets the same value; b
    starts at 0, since the case-control offset is handled in the loss.

    Args:
        sizes: Seeds.
        source: Role whose logits are calibrated; its features begin with the user embedding.
        dim: Size of that embedding.
        experts: Number of experts, at least 1.
        temperature: Temperature of the gate, positive; towards 0 each user has one expert.
        purpose: Name of the network.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        source: str,
        dim: int,
        experts: int = 5,
        temperature: float = 1.0,
        purpose: str = "experts",
    ) -> None:
        super().__init__((source,))
        if experts < 1:
            raise InputError(f"experts must be at least 1, got {experts}; try 5.")
        if not temperature > 0:
            raise InputError(f"temperature of a gate must be positive, got {temperature}; try 1.")
        self.dim, self.temperature = dim, temperature
        replicas = len(sizes.seeds)
        self.stretch = nn.Parameter(torch.zeros(replicas, 1, experts))  # a - 1
        self.shift = nn.Parameter(torch.zeros(replicas, 1, experts))
        self.gate = ReplicaLinear(dim, experts, seeds=sizes.seeds, purpose=purpose + "gate")

    def forward(self, estimator: "Estimator", pairs: "Pairs") -> Tensor:
        """Logit of the calibrated probability."""
        source = self.sources[0]
        users = estimator.features(source, pairs)[..., : self.dim]
        log_weight = torch.log_softmax(self.gate(users) / self.temperature, dim=-1)
        logit = estimator.logit(source, pairs).unsqueeze(-1)
        return mixture_logit(logit + self.stretch * logit + self.shift, log_weight)
