"""What trained networks say of any pairs, unseen users and items included, block by block."""

import math

import torch
from torch import Tensor

from upo.core.sampling import EpochStream, stream_key
from upo.models.calibration import Cells
from upo.models.estimator import Estimator
from upo.models.factorization_machine import FactorizationMachine
from upo.pairs import Pairs
from upo.runs.crossfit import log_and_others
from upo.tables.ids import spread

BLOCK = 2**17  # pairs x replicas predicted at once


class Answers:
    """Predictions and propensities of an estimator by index, of which -1 is an unseen one.

    An unseen user gets the item's mean over the users of train, an unseen item the user's mean over
    the items of train, both unseen the mean over both; over 4,096 evenly spread ones where train
    has more. A network that reads features answers for known ids without ratings itself; for
    others, these are unseen.

    Args:
        estimator: The trained networks, with the log as its pair space.
        answer: What items are ranked by, as in ``values``.
    """

    def __init__(self, estimator: Estimator, *, answer: str = "prediction") -> None:
        self.estimator, self.answer = estimator.eval(), answer
        self.replicas = estimator.space.replicas
        keys, n_items = estimator.space.keys, estimator.space.n_items
        users = torch.div(keys, n_items, rounding_mode="floor")
        self.users = torch.unique(users).cpu()  # those with rows in train
        self.items = torch.unique(keys - users * n_items).cpu()
        self._overall: dict[str, Tensor] = {}

    def values(self, what: str, users: Tensor, items: Tensor) -> Tensor:
        """``[R, N]`` float64 on the CPU.

        Args:
            what: ``prediction``; ``score``, which is the prediction before it is clipped to a
                scale; a role whose probability is asked for; or ``propensity``.
            users: ``[N]``.
            items: ``[N]``.
        """
        values = torch.empty(self.replicas, len(users), dtype=torch.float64)
        users, items = self._unseen(what, users, items)
        new_user, new_item = users < 0, items < 0
        known = ~(new_user | new_item)
        values[:, known] = self._known(what, users[known], items[known])
        for rows, lines, of_users in (
            (new_user & ~new_item, items, False),
            (new_item & ~new_user, users, True),
        ):
            if rows.any():
                line, place = torch.unique(lines[rows], return_inverse=True)
                values[:, rows] = self._means(what, line, of_users)[:, place]
        both = new_user & new_item
        if both.any():
            if what not in self._overall:
                means = self._means(what, spread(self.items), of_users=False)
                self._overall[what] = means.mean(1, keepdim=True)
            values[:, both] = self._overall[what]
        return values

    def sample_pairs(self, unobserved: int, seed: int) -> Cells:
        """Every pair of the log, and a uniform sample of the others that stands for all of them.

        Args:
            unobserved: Most pairs drawn outside the log.
            seed: Another seed is another sample.
        """
        space = self.estimator.space
        drawn = min(space.n_pairs, round(unobserved / max(1e-9, 1 - space.density)))
        domain = space.order()
        stream = EpochStream(domain, stream_key(torch.tensor([seed]), "sample of pairs"))
        keys = stream.rows(0, 1, 0, drawn, drawn)[0, 0].to(space.keys.device)
        pairs = space.pairs(keys, drawn)
        keys = (pairs.users * space.n_items + pairs.items)[~pairs.observed]
        return log_and_others(space, keys.cpu())

    @property
    def users_at_once(self) -> int:
        """Users whose scores of all items are one block."""
        return max(1, BLOCK // len(self.items))

    def best(self, users: Tensor, k: int, exclude_seen: bool) -> tuple[Tensor, Tensor]:
        """Mean scores and indices of the best items of each user, best first.

        Args:
            users: ``[U]``, no more than ``users_at_once`` to be sparing.
            k: Items for each.
            exclude_seen: Leave out the pairs of the log.

        Returns:
            Two ``[U, k]``, or narrower if train has fewer items; -inf where none is left.
        """
        grid_users = users.repeat_interleave(len(self.items))
        grid_items = self.items.repeat(len(users))
        by = "score" if self.answer == "prediction" else self.answer
        scores = self.values(by, grid_users, grid_items).mean(0)
        if exclude_seen:
            space = self.estimator.space
            where = space.keys.device
            _, seen = space.find(grid_users.clamp(min=0).to(where), grid_items.to(where))
            scores[seen.cpu() & (grid_users >= 0)] = -math.inf
        top = scores.view(len(users), len(self.items)).topk(min(k, len(self.items)), dim=1)
        return top.values, self.items[top.indices]

    def _unseen(self, what: str, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The indices, -1 where the asked network has no answer of its own."""
        network = self.estimator.networks["prediction" if what == "score" else what]
        reader = network if isinstance(network, FactorizationMachine) else self.estimator.space
        return users.where(users < reader.n_users, -1), items.where(items < reader.n_items, -1)

    def _means(self, what: str, lines: Tensor, of_users: bool) -> Tensor:  # [R, len(lines)]
        """Means of users over the items of train, or of items over its users."""
        others = spread(self.items if of_users else self.users)
        means = []
        for part in torch.split(lines, max(1, BLOCK // len(others))):
            grid = part.repeat_interleave(len(others)), others.repeat(len(part))
            values = self._known(what, *(grid if of_users else grid[::-1]))
            means.append(values.view(self.replicas, len(part), -1).mean(-1))
        return torch.cat(means, dim=1)

    @torch.no_grad()
    def _known(self, what: str, users: Tensor, items: Tensor) -> Tensor:  # [N] x 2 -> [R, N]
        space, size = self.estimator.space, max(1, BLOCK // self.replicas)
        values = [torch.empty(self.replicas, 0, dtype=torch.float64)]
        for u, i in zip(torch.split(users, size), torch.split(items, size), strict=True):
            grid = [x.to(space.keys.device).expand(self.replicas, -1) for x in (u, i)]
            pairs = Pairs(grid[0], grid[1], space, len(u))
            if what == "propensity":
                value = self.estimator.propensity(pairs)
            elif what in ("prediction", "score"):
                output = self.estimator.logit("prediction", pairs)
                value = (space.target.prediction if what == "prediction" else space.target.score)(
                    output
                )
            else:
                value = torch.sigmoid(self.estimator.logit(what, pairs))
            values.append(value.double().cpu())
        return torch.cat(values, dim=1)
