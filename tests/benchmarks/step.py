"""Milliseconds of a joint UPO-DR training step, against a bare PyTorch loop of the same maths.

The settings are the authors' development code's; the data are generated at the size of Coat and of
Yahoo! R3. All contenders run in one process and in turns, and a time is the least over the turns.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from upo.estimator import Estimator
from upo.functional.errors import cross_entropy
from upo.functional.imputation import omega_jl
from upo.learners.imputation import ImputationLearner
from upo.learners.prediction import DoublyRobust, PredictionLearner
from upo.learners.propensity import AdversaryLearner, PropensityLearner, UPOPenalty
from upo.models.adversary import Adversary
from upo.models.bins import Bins
from upo.models.factorization import MatrixFactorization
from upo.models.propensity import AdditivePropensity
from upo.models.weighting import ClippedPropensity
from upo.modules.stage import StageModule, StagePlan
from upo.optim import ReplicaAdam
from upo.pairs import PairSpace

PLAYERS = ("adversary", "propensity", "prediction", "imputation")


@dataclass(frozen=True)
class Setting:
    """Size of a data set and the development code's settings for it."""

    name: str
    n_users: int
    n_items: int
    n_observed: int
    batch: int
    ratio: int  # pairs of D for each row of O
    bins: int
    beta: float
    p_min: float
    hidden: int  # of the adversary
    lr: dict[str, float]
    weight_decay: dict[str, float]
    replicas: tuple[int, ...]
    propensity_dim: int = 32
    prediction_dim: int = 64

    @property
    def density(self) -> float:
        return self.n_observed / (self.n_users * self.n_items)


def by_player(*values: float) -> dict[str, float]:
    return dict(zip(PLAYERS, values, strict=True))


SETTINGS = (
    Setting(
        *("coat", 290, 300, 6960, 128, 1, 30, 0.5, 0.0175, 0),
        lr=by_player(0.01, 0.05, 0.05, 0.01),
        weight_decay=by_player(5e-3, 1e-3, 5e-3, 1e-4),
        replicas=(1, 10, 64),
    ),
    Setting(
        *("yahoo", 15400, 1000, 311704, 4096, 4, 20, 1.0, 0.0253, 32),
        lr=by_player(0.005, 0.005, 0.005, 0.01),
        weight_decay=by_player(0.044, 0.0099, 1.2e-4, 0.039),
        replicas=(1, 10),
    ),
)


def generated_log(s: Setting) -> tuple[Tensor, Tensor]:
    """Sorted keys and labels, at random."""
    g = torch.Generator().manual_seed(0)
    keys = torch.randperm(s.n_users * s.n_items, generator=g)[: s.n_observed].sort().values
    return keys, torch.randint(2, (s.n_observed,), generator=g).float()


def make_module(s: Setting, keys: Tensor, labels: Tensor, replicas: int) -> StageModule:
    """The joint schedule as a run has it."""
    space = PairSpace(keys, labels, s.n_users, s.n_items, list(range(replicas)))
    sizes = space.sizes
    networks = {
        "prediction": MatrixFactorization(sizes, dim=s.prediction_dim, purpose="prediction"),
        "imputation": MatrixFactorization(sizes, dim=s.prediction_dim, purpose="imputation"),
        "propensity": AdditivePropensity(sizes, dim=s.propensity_dim),
        "adversary": Adversary(sizes, dim=s.propensity_dim, hidden=s.hidden),
    }
    estimator = Estimator(
        space,
        networks,
        weighting=ClippedPropensity(p_min=s.p_min),
        bins=Bins(num_bins=s.bins, rule="equal_mass"),
    )
    adam = {
        player: partial(ReplicaAdam, lr=s.lr[player], weight_decay=s.weight_decay[player])
        for player in PLAYERS
    }
    learners = {
        "adversary": AdversaryLearner(estimator, optimizer=adam["adversary"]),
        "propensity": PropensityLearner(
            estimator,
            optimizer=adam["propensity"],
            loss=cross_entropy,
            penalties={"upo": UPOPenalty(beta=s.beta)},
        ),
        "prediction": PredictionLearner(
            estimator, optimizer=adam["prediction"], objective=DoublyRobust()
        ),
        "imputation": ImputationLearner(estimator, optimizer=adam["imputation"], omega=omega_jl),
    }
    plan = StagePlan(epochs=1, observed_batch=s.batch, pair_batch=s.ratio * s.batch)
    return StageModule(estimator, learners, plan, "debias")


class Factors(nn.Module):
    """Plain matrix factorisation."""

    def __init__(self, s: Setting, dim: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(s.n_users, dim), nn.Embedding(s.n_items, dim)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.user(users) * self.item(items)).sum(-1)


class Logistic(nn.Module):
    """The plain propensity."""

    def __init__(self, s: Setting, dim: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(s.n_users, dim), nn.Embedding(s.n_items, dim)
        self.head = nn.Linear(2 * dim, 1)

    def features(self, users: Tensor, items: Tensor) -> Tensor:
        return torch.cat([self.user(users), self.item(items)], dim=-1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return self.head(self.features(users, items)).squeeze(-1)


class BareLoop:
    """One seed of the same schedule as one would write it for this estimator alone."""

    def __init__(self, s: Setting, keys: Tensor, labels: Tensor) -> None:
        self.s, self.labels = s, labels
        self.users, self.items = keys // s.n_items, keys % s.n_items
        self.table = torch.zeros(s.n_users, s.n_items, dtype=torch.bool)
        self.table[self.users, self.items] = True
        k = s.propensity_dim
        if s.hidden:
            weight = nn.Sequential(nn.Linear(2 * k, s.hidden), nn.ReLU(), nn.Linear(s.hidden, 1))
        else:
            weight = nn.Sequential(nn.Linear(2 * k, 1))
        self.nets = nn.ModuleDict(
            {
                "adversary": weight,
                "propensity": Logistic(s, k),
                "prediction": Factors(s, s.prediction_dim),
                "imputation": Factors(s, s.prediction_dim),
            }
        )
        self.optimizers = {
            player: torch.optim.Adam(
                self.nets[player].parameters(),
                lr=s.lr[player],
                weight_decay=s.weight_decay[player],
                fused=True,
            )
            for player in PLAYERS
        }
        self.levels = torch.arange(1, s.bins) / s.bins
        self.order = torch.randperm(s.n_observed)
        self.at = 0

    def run(self, steps: int) -> None:
        s = self.s
        for _ in range(steps):
            if self.at + s.batch > s.n_observed:
                self.order, self.at = torch.randperm(s.n_observed), 0
            rows = self.order[self.at : self.at + s.batch]
            self.at += s.batch
            d_users = torch.randint(s.n_users, (s.ratio * s.batch,))
            d_items = torch.randint(s.n_items, (s.ratio * s.batch,))
            losses = self.step(
                self.users[rows], self.items[rows], self.labels[rows], d_users, d_items
            )
            if not torch.isfinite(losses).all():
                raise FloatingPointError("The bare loop diverged.")

    def step(
        self, users: Tensor, items: Tensor, label: Tensor, d_users: Tensor, d_items: Tensor
    ) -> Tensor:
        s, nets = self.s, self.nets
        o = self.table[d_users, d_items].float()

        with torch.no_grad():
            features = nets.propensity.features(d_users, d_items)
            p_hat = torch.sigmoid(nets.propensity.head(features).squeeze(-1))
            index = torch.bucketize(p_hat, torch.quantile(p_hat, self.levels))
        weight = torch.tanh(nets.adversary(features).squeeze(-1))
        gain = self.game(p_hat, o, weight, index)
        self.descend("adversary", -gain)

        logit = nets.propensity(d_users, d_items)
        with torch.no_grad():
            weight = torch.tanh(nets.adversary(features).squeeze(-1))
        fit = binary_cross_entropy_with_logits(logit, o)
        penalty = s.beta * self.game(torch.sigmoid(logit), o, weight, index)
        self.descend("propensity", fit + penalty)

        with torch.no_grad():
            p_hat = torch.sigmoid(nets.propensity(users, items)).clamp(s.p_min, 1 - 1e-6)
            y, d_y = nets.imputation(users, items), nets.imputation(d_users, d_items)
            y, d_y = torch.sigmoid(y), torch.sigmoid(d_y)
        f, d_f = nets.prediction(users, items), nets.prediction(d_users, d_items)
        e = binary_cross_entropy_with_logits(f, label, reduction="none")
        e_hat, d_e_hat = softplus(f) - y * f, softplus(d_f) - d_y * d_f
        loss = d_e_hat.mean() + s.density * ((e - e_hat) / p_hat).mean()
        self.descend("prediction", loss)

        with torch.no_grad():
            f = nets.prediction(users, items)
            e = binary_cross_entropy_with_logits(f, label, reduction="none")
        e_hat = softplus(f) - torch.sigmoid(nets.imputation(users, items)) * f
        gap = s.density * ((e - e_hat) ** 2 / p_hat).mean()
        self.descend("imputation", gap)
        return torch.stack([gain, fit, penalty, loss, gap]).detach()

    def game(self, p_hat: Tensor, o: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        sums = torch.zeros(self.s.bins).scatter_add(0, index, weight * (o - p_hat))
        return sums.abs().sum() / len(o)

    def descend(self, player: str, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()


@dataclass
class Timing:
    """Least milliseconds of one step so far."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def take(self, run: Callable[[], object], steps: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.cpu = min(self.cpu, (time.process_time() - cpu) * 1e3 / steps)
        self.wall = min(self.wall, (time.perf_counter() - wall) * 1e3 / steps)


def measure(s: Setting, replicas: tuple[int, ...], turns: int, most: int | None) -> list[str]:
    """Rows of the table."""
    keys, labels = generated_log(s)
    bare, bare_time = BareLoop(s, keys, labels), Timing()
    stacks = []
    for count in replicas:
        module = make_module(s, keys, labels, count)
        chunk = module.train_dataloader().size
        stacks.append((count, module, min(chunk, most or chunk), Timing(), Timing()))
    for turn in range(turns):
        steps = most or 64
        bare_time.take(lambda n=steps: bare.run(n), steps)
        for _, module, steps, whole, drawing in stacks:
            first = turn * steps
            whole.take(lambda m=module, f=first, n=steps: m.training_step((f, n), 0), steps)
            drawing.take(lambda m=module, f=first, n=steps: m.sampler.chunk(f, n), steps)
    rows = [row(s.name, "bare", 1, bare_time, bare_time, None)]
    for count, _, _, whole, drawing in stacks:
        rows.append(row(s.name, "upo", count, whole, bare_time, drawing))
    return rows


def row(
    name: str, loop: str, replicas: int, time_: Timing, bare: Timing, drawing: Timing | None
) -> str:
    share = f"{drawing.cpu / time_.cpu:8.0%}" if drawing else " " * 8
    return (
        f"{name:6} {loop:5} {replicas:3d} {time_.wall:9.3f} {time_.wall / replicas:9.3f} "
        f"{time_.cpu / replicas:9.3f} {time_.wall / replicas / bare.wall:7.2f} "
        f"{time_.cpu / replicas / bare.cpu:7.2f} {share}"
    )


HEAD = (
    f"{'':6} {'':5} {'':3} {'wall ms':>9} {'wall ms /':>9} {'cpu ms /':>9} {'x bare':>7} "
    f"{'x bare':>7} {'sampling':>8}\n"
    f"{'size':6} {'loop':5} {'R':>3} {'/ step':>9} {'R-step':>9} {'R-step':>9} {'wall':>7} "
    f"{'cpu':>7} {'of step':>8}\n"
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps each: does it run?")
    parser.add_argument("--only", choices=[s.name for s in SETTINGS], help="one of the sizes")
    parser.add_argument("--turns", type=int, default=8, help="repeats, of which the least counts")
    options = parser.parse_args(arguments)
    command = " ".join(["python tests/benchmarks/step.py", *(arguments or sys.argv[1:])])
    sys.stdout.write(
        f"{command} (threads: {torch.get_num_threads()}, cores: {os.cpu_count()}, "
        f"load: {os.getloadavg()[0]:.1f}, torch {torch.__version__})\n{HEAD}"
    )
    for s in SETTINGS:
        if options.only in (None, s.name):
            replicas = s.replicas[:1] if options.quick else s.replicas
            turns = 1 if options.quick else options.turns
            rows = measure(s, replicas, turns, 2 if options.quick else None)
            sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
