"""Small pair spaces and estimators that the tests of the core share."""

from functools import partial

import torch

from upo.core import lookups
from upo.core.optim import ReplicaAdam
from upo.core.row_adam import RowAdam
from upo.functional.imputation import omega_jl
from upo.functional.pointwise import cross_entropy
from upo.learners.imputation import ImputationLearner
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

N_USERS, N_ITEMS = 12, 17


def make_log(n_users=N_USERS, n_items=N_ITEMS, density=0.3):
    """Sorted keys and labels of a log that misses not at random: positives are logged more."""
    g = torch.Generator().manual_seed(5)
    labels = torch.bernoulli(torch.full((n_users * n_items,), 0.4), generator=g)
    p = torch.where(labels > 0, 1.6 * density, 0.6 * density)
    keys = torch.nonzero(torch.bernoulli(p, generator=g)).flatten()
    return keys, labels[keys]


def make_space(seeds=(0, 1, 2), holdout=0.0, **log):
    keys, labels = make_log(**log)
    sizes = log.get("n_users", N_USERS), log.get("n_items", N_ITEMS)
    return PairSpace(keys, labels, *sizes, list(seeds), holdout)


def make_estimator(space, rule="equal_mass", num_bins=4, p_min=0.1, form=None, dim=3):
    """Prediction, imputation, propensity and adversary: every network UPO-DR has."""
    sizes = space.sizes
    networks = {
        "prediction": MatrixFactorization(sizes, dim=dim, purpose="prediction"),
        "imputation": MatrixFactorization(sizes, dim=dim, purpose="imputation"),
        "propensity": AdditivePropensity(sizes, dim=dim, init_std=1.0, purpose="propensity"),
        "adversary": Adversary(sizes, dim=dim, hidden=4, purpose="adversary"),
    }
    return Estimator(
        space,
        networks,
        weighting=ClippedPropensity(p_min=p_min, relative=False),
        form=form or PseudoLabel(),
        bins=Bins(num_bins=num_bins, rule=rule),
    )


def adam(lr=0.02, weight_decay=1e-3):
    return partial(ReplicaAdam, lr=lr, weight_decay=weight_decay)


def by_rows(lr=0.02, weight_decay=1e-3):
    return partial(RowAdam, lr=lr, weight_decay=weight_decay)


def make_learners(estimator, lr=0.02, beta=1.0, make=adam, penalty=None):
    """The four players of the joint schedule, in playing order."""
    optimizer = make(lr)
    return {
        "adversary": AdversaryLearner(estimator, optimizer=optimizer),
        "propensity": PropensityLearner(
            estimator,
            optimizer=optimizer,
            loss=cross_entropy,
            penalties={"upo": UPOPenalty(beta=beta)},
            penalty=penalty,
        ),
        "prediction": PredictionLearner(
            estimator, optimizer=optimizer, objective=DoublyRobust(), penalty=penalty
        ),
        "imputation": ImputationLearner(
            estimator, optimizer=optimizer, omega=omega_jl, penalty=penalty
        ),
    }


# batches that two or three ranks do not share evenly
PLANS = {"few": (3, 7), "many": (37, 101)}
PATHS = {"rows": 0, "table": 10**6, "by size": lookups.ROWS_PER_LOOKUP}
KINDS = {"by rows": by_rows, "dense": lambda lr: partial(ReplicaAdam, lr=lr)}


def after_steps(seeds, path, batches, kind, rates, penalty, steps):
    """Parameters and moments after some joint steps in float64.

    Args:
        seeds: Of the replicas.
        path: Of ``PATHS``: whether looked-up rows are gathered, or tables read whole.
        batches: Of ``PLANS``.
        kind: Of ``KINDS``, the optimiser.
        rates: One, or one for each replica.
        penalty: Of the tables.
        steps: How many.
    """
    lookups.ROWS_PER_LOOKUP = PATHS[path]
    estimator = make_estimator(make_space(seeds))
    estimator.networks.to(torch.float64)
    learners = make_learners(estimator, rates, make=KINDS[kind], penalty=penalty)
    observed, pairs = PLANS[batches]
    plan = StagePlan(epochs=1, observed_batch=observed, pair_batch=pairs)
    module = StageModule(estimator, learners, plan, "debias")
    for batch in module.sampler.chunk(0, steps):
        module._step(batch)
    lookups.ROWS_PER_LOOKUP = PATHS["by size"]
    found = dict(estimator.networks.state_dict())
    for name, learner in learners.items():
        for number, state in learner.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number} {key}": value for key, value in state.items()}
    return {key: value.detach().clone() for key, value in found.items()}


def parameters(module):
    """Copies of all parameters by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def replica(stacked, r, replicas):
    """One replica's part of a replica-major parameter."""
    return stacked.reshape(replicas, -1)[r]
