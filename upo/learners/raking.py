"""The closed-form player that rakes a propensity to the totals of users and items."""

import torch

from upo.errors import InputError
from upo.functional.raking import rake, shrunk_totals
from upo.learners.base import Learner, Logs
from upo.models.estimator import Estimator
from upo.models.raking import RakedPropensity
from upo.pairs import Batch, training_rows

LOGIT = 30.0  # in absolute value: squares of weights stay finite in float32


class Raking(Learner):
    """Sets the terms of a ``RakedPropensity`` at the start of a stage; learns nothing afterwards.

    Inverse propensities of the training rows then add up to the cells of every user and every item,
    so an imputation that is off by any amount of its own for each user and each item leaves no
    bias. All training rows are held at once.

    Args:
        estimator: The networks.
        network: Role of the raked propensity.
        slack: Standard errors within which a total stays as it is; a user with five ratings has a
            total by chance, and raking to it adds noise. 0 rakes all exactly.
        sweeps: Sweeps over users and items.
        limit: Largest absolute value of a term: 3 changes odds by a factor of at most 20 a side.

    Raises:
        InputError: If the network is another, or a number is out of range.
    """

    replayable = True

    def __init__(
        self,
        estimator: Estimator,
        *,
        network: str = "raked",
        slack: float = 1.0,
        sweeps: int = 30,
        limit: float = 3.0,
    ) -> None:
        super().__init__(estimator, network=network)
        self.raked = estimator.network_of(network, RakedPropensity)
        if not 0 <= slack < float("inf"):
            raise InputError(f"slack of the raking must be at least 0 and finite, got {slack}.")
        if sweeps < 1:
            raise InputError(f"sweeps of the raking must be at least 1, got {sweeps}; try 100.")
        if not limit > 0:
            raise InputError(f"limit of the raking must be above 0, got {limit}; try 3.")
        self.slack, self.sweeps, self.limit = slack, sweeps, limit

    @torch.no_grad()
    def on_stage_start(self) -> None:
        """Rake all training rows."""
        estimator, space = self.estimator, self.estimator.space
        source = self.raked.sources[0]
        blocks = [(x.users, x.items, estimator.logit(source, x)) for x in training_rows(space)]
        users, items, logit = (torch.cat(parts, dim=-1) for parts in zip(*blocks, strict=True))
        weight = 1.0 + (-logit).clamp(max=LOGIT).exp()
        totals = []
        for index, size in ((users, space.n_users), (items, space.n_items)):
            cells = space.n_pairs / size
            totals.append(shrunk_totals(weight, index, size, cells, self.slack))
        user, item = rake(
            logit, users, items, totals[0], totals[1], sweeps=self.sweeps, limit=self.limit
        )
        self.raked.user.copy_(user)
        self.raked.item.copy_(item)
        estimator.stepped(self.network)

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within a stage."""
        return {}
