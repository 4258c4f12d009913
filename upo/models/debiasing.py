"""Debiasing parameters that a few ratings at random teach (AutoDebias)."""

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding, Sizes
from upo.models.factorization import start_logit
from upo.pairs import Pairs

STEP = 5.0  # parameters are divided by it, as in public code, so that one rate serves all
STEEPEST = 20.0  # logarithm of a weight, so that sums of weights stay finite in float32


class DebiasingParameters(nn.Module):
    r"""Weights :math:`w=e^{(b_i+c_r)/5}` of observed rows, and a pseudo-label for each state of D.

    States are: not observed, observed negative, observed positive. Weights start at 1 and
    pseudo-labels at the share of positive training labels.

    Source: Chen et al., "AutoDebias", SIGIR 2021. Differs: no term of the user, to whom users of
    the test set would be strangers, and no weights of pairs of D: the three-label form.

    Args:
        sizes: Users, items, seeds and the log.
        purpose: Name of the network.
    """

    def __init__(self, sizes: Sizes, *, purpose: str = "debiasing") -> None:
        super().__init__()
        replicas = len(sizes.seeds)
        self.item = ReplicaEmbedding(
            sizes.n_items, 1, seeds=sizes.seeds, std=0.0, purpose=purpose + "i"
        )
        self.rating = nn.Parameter(torch.zeros(replicas, 2))
        self.state = nn.Parameter(start_logit(sizes, "rate")[:, None].repeat(1, 3) * STEP)

    def weight(self, rows: Pairs) -> Tensor:  # [R, B]
        """Weights of observed rows, above 0; only their ratios count."""
        exponent: Tensor = self(rows.users, rows.items)
        exponent = exponent + self.rating.gather(1, rows.labels.long()) / STEP
        return exponent.clamp(-STEEPEST, STEEPEST).exp()

    def label(self, pairs: Pairs) -> Tensor:  # [R, B]
        """Pseudo-labels of pairs of D, in (0, 1)."""
        state = torch.where(pairs.trainable, 1 + pairs.labels.long(), 0)
        return torch.sigmoid(self.state.gather(1, state) / STEP)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:  # [R, B] x 2 -> [R, B]
        """Logarithms of the items' weights."""
        found: Tensor = self.item(items).squeeze(-1) / STEP
        return found
