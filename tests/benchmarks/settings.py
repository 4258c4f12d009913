"""The sizes at which a step is timed, their networks and random data of that size.

The settings are the authors' development code's for Coat, Yahoo! R3 and KuaiRec.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from upo.core.optim import ReplicaAdam
from upo.functional.imputation import omega_jl
from upo.functional.pointwise import cross_entropy
from upo.learners.base import Optimizer
from upo.learners.imputation import ImputationLearner
from upo.learners.penalty import Strengths
from upo.learners.prediction import DoublyRobust, PredictionLearner
from upo.learners.propensity import AdversaryLearner, PropensityLearner, UPOPenalty
from upo.models.adversary import Adversary
from upo.models.bins import Bins
from upo.models.estimator import Estimator
from upo.models.factorization import MatrixFactorization
from upo.models.imputation import PseudoLabel
from upo.models.propensity import AdditivePropensity
from upo.models.weighting import ClippedPropensity
from upo.pairs import PairSpace
from upo.training.stage import StageModule, StagePlan

# replay and compiled of a stage; graph is the recorded step as one launch, on a GPU
LOOPS: dict[str, tuple[bool, bool | None]] = {
    "step": (False, False),
    "replay": (True, False),
    "graph": (True, None),
    "compiled": (True, True),
}
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
    propensity_dim: int = 32
    prediction_dim: int = 64

    @property
    def density(self) -> float:
        return self.n_observed / (self.n_users * self.n_items)

    def gib(self, replicas: int) -> float:
        """Memory of a step, roughly: parameters, gradients, moments, and a dozen of the largest
        tensors of the batch."""
        tables = (self.n_users + self.n_items) * (2 * self.prediction_dim + self.propensity_dim)
        width = max(self.prediction_dim, 2 * self.propensity_dim)
        return replicas * 4 * (4 * tables + 12 * self.ratio * self.batch * width) / 2**30


def finish(device: str) -> None:
    """Wait until a device has done what was asked of it."""
    if device != "cpu":
        torch.cuda.synchronize()


def by_player(*values: float) -> dict[str, float]:
    return dict(zip(PLAYERS, values, strict=True))


SETTINGS = (
    Setting(
        *("coat", 290, 300, 6960, 128, 1, 30, 0.5, 0.0175, 0),
        lr=by_player(0.01, 0.05, 0.05, 0.01),
        weight_decay=by_player(5e-3, 1e-3, 5e-3, 1e-4),
    ),
    Setting(
        *("yahoo", 15400, 1000, 311704, 4096, 4, 20, 1.0, 0.0253, 32),
        lr=by_player(0.005, 0.005, 0.005, 0.01),
        weight_decay=by_player(0.044, 0.0099, 1.2e-4, 0.039),
    ),
    Setting(
        *("kuairec", 1411, 3327, 201171, 4096, 4, 20, 10.0, 1.0, 32),
        lr=by_player(0.005, 0.005, 0.005, 0.005),
        weight_decay=by_player(1e-5, 1e-5, 1e-5, 1e-5),
        propensity_dim=128,
        prediction_dim=128,
    ),
)


def generated_log(s: Setting) -> tuple[Tensor, Tensor]:
    """Sorted keys and labels, at random."""
    g = torch.Generator().manual_seed(0)
    keys = torch.randperm(s.n_users * s.n_items, generator=g)[: s.n_observed].sort().values
    return keys, torch.randint(2, (s.n_observed,), generator=g).float()


def make_module(
    s: Setting,
    keys: Tensor,
    labels: Tensor,
    replicas: int,
    *,
    optimizers: dict[str, Optimizer] | None = None,
    penalty: Strengths | None = None,
) -> StageModule:
    """The joint schedule as a run has it; by default with dense Adam and the setting's decay."""
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
        form=PseudoLabel(),
        weighting=ClippedPropensity(p_min=s.p_min, relative=False),
        bins=Bins(num_bins=s.bins, rule="equal_mass"),
    )
    adam = optimizers or {
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
            penalty=penalty,
        ),
        "prediction": PredictionLearner(
            estimator, optimizer=adam["prediction"], objective=DoublyRobust(), penalty=penalty
        ),
        "imputation": ImputationLearner(
            estimator, optimizer=adam["imputation"], omega=omega_jl, penalty=penalty
        ),
    }
    plan = StagePlan(epochs=1, observed_batch=s.batch, pair_batch=s.ratio * s.batch)
    return StageModule(estimator, learners, plan, "debias")
