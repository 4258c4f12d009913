"""One seed of UPO-DR with the default settings as one would write it in PyTorch: dense steps."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

# of conf/, for the joint schedule
LR = {"adversary": 0.01, "propensity": 0.002, "prediction": 0.003, "imputation": 0.003}
ADVERSARY_DECAY, PROPENSITY_DIM, BINS, BETA = 1e-3, 16, 10, 10.0
PROPENSITY_ROWS, ROWS, BIASES = 0.01, 0.03, 0.003  # penalties
CLIP = 0.5  # of the density


@dataclass(frozen=True)
class Size:
    """Size of a log, the batch of the default settings for it, and the embedding size."""

    name: str
    n_users: int
    n_items: int
    n_observed: int
    batch: int  # rows of O, and pairs of D
    dim: int = 64

    @property
    def density(self) -> float:
        return self.n_observed / (self.n_users * self.n_items)

    @property
    def gib(self) -> float:
        """Parameters, gradients and both moments of one replica."""
        columns = 2 * (self.dim + 1) + PROPENSITY_DIM
        return 4 * 4 * (self.n_users + self.n_items) * columns / 2**30


class Factors(nn.Module):
    """Matrix factorisation with biases; says how large the rows of a batch are, too."""

    def __init__(self, s: Size) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(s.n_users, s.dim), nn.Embedding(s.n_items, s.dim)
        self.user_bias, self.item_bias = nn.Embedding(s.n_users, 1), nn.Embedding(s.n_items, 1)
        self.globe = nn.Parameter(torch.zeros(1))
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.03 * s.dim**-0.5)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:  # [B], [B]
        p, q = self.user(users), self.item(items)
        b, c = self.user_bias(users).squeeze(-1), self.item_bias(items).squeeze(-1)
        size = ROWS * ((p**2).sum(-1) + (q**2).sum(-1)) + BIASES * (b**2 + c**2)
        return (p * q).sum(-1) + b + c + self.globe, size


class Additive(nn.Module):
    """The plain propensity with terms of user and item."""

    def __init__(self, s: Size) -> None:
        super().__init__()
        dim = PROPENSITY_DIM - 1
        self.user, self.item = nn.Embedding(s.n_users, dim), nn.Embedding(s.n_items, dim)
        self.user_term, self.item_term = nn.Embedding(s.n_users, 1), nn.Embedding(s.n_items, 1)
        self.head = nn.Linear(2 * dim, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)

    def parts(self, users: Tensor, items: Tensor) -> list[Tensor]:
        return [self.user_term(users), self.user(users), self.item_term(items), self.item(items)]

    def logit(self, a: Tensor, p: Tensor, b: Tensor, q: Tensor) -> Tensor:
        return (self.head(torch.cat([p, q], dim=-1)) + a + b).squeeze(-1)


class DefaultLoop:
    """Four ``nn.Module`` with ``nn.Embedding``, four ``torch.optim.Adam``, a list of what was
    observed.

    Args:
        s: The size.
        keys: Sorted keys of the log.
        labels: Their labels.
        fused: Use Adam's fused kernel, its fastest form; the field's scripts do not.
    """

    def __init__(self, s: Size, keys: Tensor, labels: Tensor, *, fused: bool | None = True) -> None:
        self.s, self.keys, self.labels = s, keys, labels
        width, hidden = 2 * PROPENSITY_DIM, PROPENSITY_DIM
        self.nets = nn.ModuleDict(
            {
                "adversary": nn.Sequential(
                    nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
                ),
                "propensity": Additive(s),
                "prediction": Factors(s),
                "imputation": Factors(s),
            }
        )
        self.optimizers = {
            player: torch.optim.Adam(
                net.parameters(),
                lr=LR[player],
                weight_decay=ADVERSARY_DECAY if player == "adversary" else 0.0,
                fused=fused,
            )
            for player, net in self.nets.items()
        }
        self.edges = torch.arange(1, BINS) / BINS
        self.order, self.at = torch.randperm(len(keys)), 0

    def run(self, steps: int) -> None:
        s, device = self.s, self.keys.device
        for _ in range(steps):
            if self.at + s.batch > len(self.keys):
                self.order, self.at = torch.randperm(len(self.keys), device=device), 0
            rows = self.order[self.at : self.at + s.batch]
            self.at += s.batch
            d_users = torch.randint(s.n_users, (s.batch,), device=device)
            d_items = torch.randint(s.n_items, (s.batch,), device=device)
            users, items = self.keys[rows] // s.n_items, self.keys[rows] % s.n_items
            losses = self.step(users, items, self.labels[rows], d_users, d_items)
            if not torch.isfinite(losses).all():
                raise FloatingPointError("The bare loop diverged.")

    def observed(self, users: Tensor, items: Tensor) -> Tensor:
        key = users * self.s.n_items + items
        row = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return (self.keys[row] == key).float()

    def step(
        self, users: Tensor, items: Tensor, label: Tensor, d_users: Tensor, d_items: Tensor
    ) -> Tensor:
        nets, density = self.nets, self.s.density
        o = self.observed(d_users, d_items)
        propensity: Additive = nets["propensity"]  # type: ignore[assignment]

        with torch.no_grad():
            parts = propensity.parts(d_users, d_items)
            features, p_hat = torch.cat(parts, dim=-1), torch.sigmoid(propensity.logit(*parts))
            index = torch.bucketize(p_hat, self.edges)
        gain = self.game(p_hat, o, self.weight(features), index)
        self.descend("adversary", -gain)

        parts = propensity.parts(d_users, d_items)
        logit = propensity.logit(*parts)
        with torch.no_grad():
            weight = self.weight(features)
        fit = binary_cross_entropy_with_logits(logit, o)
        penalty = BETA * self.game(torch.sigmoid(logit), o, weight, index)
        size = (parts[1] ** 2).sum(-1).mean() + (parts[3] ** 2).sum(-1).mean()
        self.descend("propensity", fit + penalty + PROPENSITY_ROWS * size)

        with torch.no_grad():
            p_hat = torch.sigmoid(propensity.logit(*propensity.parts(users, items)))
            p_hat = p_hat.clamp(CLIP * density, 1 - 1e-6)
            importance = density / p_hat
            y, d_y = (
                torch.sigmoid(nets["imputation"](*pairs)[0])
                for pairs in ((users, items), (d_users, d_items))
            )
        (f, size), (d_f, d_size) = (
            nets["prediction"](users, items),
            nets["prediction"](d_users, d_items),
        )
        e = binary_cross_entropy_with_logits(f, label, reduction="none")
        e_hat, d_e_hat = softplus(f) - y * f, softplus(d_f) - d_y * d_f
        loss = d_e_hat.mean() + (importance * (e - e_hat)).mean()
        self.descend("prediction", loss + ((importance * size).mean() + d_size.mean()) / 2)

        g, size = nets["imputation"](users, items)
        g_loss = binary_cross_entropy_with_logits(g, label, reduction="none")
        fitted = (importance * g_loss).mean()
        self.descend("imputation", fitted + (importance * size).mean())
        return torch.stack([gain, fit, penalty, loss, fitted]).detach()

    def weight(self, features: Tensor) -> Tensor:
        return torch.tanh(self.nets["adversary"](features).squeeze(-1))

    def game(self, p_hat: Tensor, o: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        sums = p_hat.new_zeros(BINS).scatter_add(0, index, weight * (o - p_hat))
        return sums.abs().sum() / len(o)

    def descend(self, player: str, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()
