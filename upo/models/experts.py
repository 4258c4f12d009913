"""Calibration experts: several affine maps of a logit, mixed by a gate on the user."""

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaLinear, Sizes
from upo.core.sampling import splitmix64, stream_key, uniform
from upo.errors import InputError
from upo.functional.calibration import mixture_logit
from upo.models.estimator import Derived, Estimator
from upo.pairs import Pairs

START = 0.1  # the outer experts' first b


class CalibrationExperts(Derived):
    r"""Doubly calibrated estimator's post-processor :math:`\sum_n g_n(u)\,\sigma(a_n z+b_n)`.

    The gate is a softmax of an affine map of the source's frozen user embedding. The experts start
    around the source's own logit (a = 1, b evenly spaced about 0), and weight decay of the
    parameters (a - 1, b and the gate's) draws them to it, which matters where the fold is small.
    Were all b equal, the gate's gradient would be 0, and Adam would make steps of its rounding.

    Source: Kweon, Yu, "Doubly calibrated estimator for recommendation on data missing not at
    random", WWW 2024. Differs: no Gumbel noise by default, so the same pair always gets the same
    value; b starts about 0 and not at -1, since the loss knows the rate of observation.

    ``gate: gumbel`` is the public code's gate: Gumbel noise on the softmax, at a temperature that
    falls geometrically while the experts train, and that is on at use as well. There it is drawn
    anew at every evaluation; here it is a function of seed, pair and the steps that the experts
    have taken, so that it is the same on every device, in a resumed run and at a second look.

    Args:
        sizes: Seeds.
        source: Role whose logits are calibrated; its features begin with the user embedding.
        dim: Size of that embedding.
        experts: Number of experts, at least 1.
        temperature: Temperature of the gate, positive; towards 0 each user has one expert.
        gate: ``softmax`` or ``gumbel``.
        final_temperature: What a Gumbel gate's temperature falls to, positive; unused otherwise.
        anneal_steps: Steps of the experts over which it falls, at least 1.
        purpose: Name of the network.

    Raises:
        InputError: If a number is out of range or the gate unknown.
    """

    replayable = True

    steps: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        source: str,
        dim: int,
        experts: int = 5,
        temperature: float = 1.0,
        gate: str = "softmax",
        final_temperature: float = 1e-3,
        anneal_steps: int = 100,
        purpose: str = "experts",
    ) -> None:
        super().__init__((source,))
        if experts < 1:
            raise InputError(f"experts must be at least 1, got {experts}; try 5.")
        if not min(temperature, final_temperature) > 0:
            raise InputError(
                "temperature and final_temperature of a gate must be positive, got "
                f"{temperature} and {final_temperature}; try 1 and 0.001."
            )
        if gate not in ("softmax", "gumbel"):
            raise InputError(f"gate must be 'softmax' or 'gumbel', got {gate!r}.")
        if anneal_steps < 1:
            raise InputError(f"anneal_steps must be at least 1, got {anneal_steps}; try 100.")
        self.dim, self.temperature, self.noisy = dim, temperature, gate == "gumbel"
        self.final_temperature, self.anneal_steps = final_temperature, anneal_steps
        self.purpose = purpose
        replicas = len(sizes.seeds)
        self.stretch = nn.Parameter(torch.zeros(replicas, 1, experts))  # a - 1
        apart = torch.linspace(-START, START, experts) if experts > 1 else torch.zeros(1)
        self.shift = nn.Parameter(apart.repeat(replicas, 1, 1))
        self.gate = ReplicaLinear(dim, experts, seeds=sizes.seeds, purpose=purpose + "gate")
        if self.noisy:
            self.register_buffer("steps", torch.zeros(replicas, 1, dtype=torch.int64))

    def stepped(self) -> None:
        """Note a step of the experts, at which a Gumbel gate cools and draws other noise."""
        if self.noisy:
            self.steps += 1

    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Logit of the calibrated probability."""
        source = self.sources[0]
        users = estimator.features(source, pairs)[..., : self.dim]
        score = self.gate(users)
        if self.noisy:
            share = torch.softmax(score, dim=-1) + self.noise(pairs).to(score.dtype)
            log_weight = torch.log_softmax(share / self._annealed().to(score.dtype), dim=-1)
        else:
            log_weight = torch.log_softmax(score / self.temperature, dim=-1)
        logit = estimator.logit(source, pairs).unsqueeze(-1)
        return mixture_logit(logit + self.stretch * logit + self.shift, log_weight)

    def noise(self, pairs: Pairs) -> Tensor:  # [R, B, experts] float64
        """Standard Gumbel noise of the pairs at the current step."""
        key = stream_key(pairs.space.seeds, "gate", self.purpose)[:, None]
        key = splitmix64(key ^ splitmix64(self.steps))
        index = splitmix64(pairs.users * pairs.space.n_items + pairs.items)
        expert = splitmix64(torch.arange(self.shift.shape[-1], device=index.device))
        draw = uniform(splitmix64(splitmix64(key ^ index).unsqueeze(-1) ^ expert))
        return -torch.log(-torch.log(draw + 2.0**-54))  # the middle of each interval: never 0

    def _annealed(self) -> Tensor:  # [R, 1, 1] float64
        done = (self.steps.double() / self.anneal_steps).clamp(max=1.0)
        fallen = (self.final_temperature / self.temperature) ** done
        return (self.temperature * fallen).unsqueeze(-1)
