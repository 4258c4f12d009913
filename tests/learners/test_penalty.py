"""The penalty on looked-up rows is that of the written formula, by every path to it."""

from functools import partial

import pytest
import torch
from omegaconf import OmegaConf
from worlds import N_ITEMS, N_USERS, make_log, make_space

from upo.core import lookups
from upo.core.layers import ReplicaEmbedding
from upo.core.optim import ReplicaAdam
from upo.core.row_adam import RowAdam
from upo.errors import InputError
from upo.functional.imputation import omega_mrdr
from upo.functional.pointwise import cross_entropy
from upo.learners.imputation import ImputationLearner
from upo.learners.prediction import (
    DoublyRobust,
    InversePropensity,
    Naive,
    PredictionLearner,
    SelfNormalized,
)
from upo.learners.propensity import PropensityLearner
from upo.models.bins import Bins
from upo.models.estimator import Estimator
from upo.models.factorization import MatrixFactorization, NeuralCollaborativeFiltering
from upo.models.factorization_machine import FactorizationMachine
from upo.models.imputation import ConstantImputation, PseudoLabel
from upo.models.propensity import AdditivePropensity
from upo.models.weighting import ClippedPropensity
from upo.pairs import BatchSampler, PairSpace

NETWORKS = {
    "mf": partial(MatrixFactorization, dim=3, biases=True),
    "ncf": partial(NeuralCollaborativeFiltering, dim=3, hidden=[4]),
    "additive": partial(AdditivePropensity, dim=3),
}
OBJECTIVES = {
    "naive": Naive,
    "ips": InversePropensity,
    "snips": SelfNormalized,
    "dr": DoublyRobust,
}
ONE = {"rows": 0.3, "biases": 0.7}
EACH = {"rows": [0.3, 0.0, 2.0], "biases": [0.0, 0.7, 0.1]}


@pytest.fixture(params=["dense", "table", "rows"])
def optimizer(request, monkeypatch):
    """Dense Adam, and steps on rows by either path."""
    monkeypatch.setattr(lookups, "ROWS_PER_LOOKUP", 0 if request.param == "rows" else 10**6)
    return partial(ReplicaAdam if request.param == "dense" else RowAdam, lr=0.1)


def make_estimator(network):
    space = make_space()
    networks = {
        "prediction": NETWORKS[network](space.sizes, purpose="prediction"),
        "propensity": AdditivePropensity(space.sizes, dim=2, init_std=1.0),
        "imputation": ConstantImputation(space.sizes, label=0.3),
    }
    for p in networks["prediction"].parameters():  # biases start at 0
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    weighting = ClippedPropensity(p_min=0.1, relative=False)
    return Estimator(space, networks, weighting=weighting, form=PseudoLabel(), bins=Bins())


def gradients(learner, batch, monkeypatch):
    """What the learner would descend, by name of the parameter; no step is taken."""
    found = {}

    def note(grads):
        for (name, _), g in zip(learner.named, grads, strict=True):
            found[name] = (g.total if isinstance(g, lookups.TableGradient) else g).clone()

    learner.named = list(learner.estimator.networks[learner.network].named_parameters())
    with monkeypatch.context() as patch:
        patch.setattr(learner.optimizer, "update", note)
        for part in batch.parts:
            part.memo.clear()
        learner.update(batch)
    return found


def formula(network, parts, strengths, replicas):
    """The penalty ``[R]`` as it is written, of the weighted batches that the loss reads."""
    value = torch.zeros(replicas)
    for pairs, weight in parts:
        for table in (m for m in network.modules() if isinstance(m, ReplicaEmbedding)):
            users = table.n == pairs.space.n_users
            strength = torch.as_tensor(strengths["biases" if table.dim == 1 else "rows"])
            rows = table.tables()[
                torch.arange(replicas)[:, None], pairs.users if users else pairs.items
            ]
            value = value + strength * (weight * (rows**2).sum(-1)).mean(-1)
    return value / len(parts)


@pytest.mark.parametrize("strengths", [ONE, EACH], ids=["one", "each"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_the_formula(
    network, objective, strengths, optimizer, float64, monkeypatch
):
    estimator = make_estimator(network)
    make = partial(
        PredictionLearner, estimator, optimizer=optimizer, objective=OBJECTIVES[objective]()
    )
    # twice: a batch larger than the additive network's tables is looked up in whole tables
    for sizes in ((5, 4), (40, 60)):
        batch = BatchSampler(estimator.space, "test", *sizes).chunk(0, 1)[0]
        plain = gradients(make(), batch, monkeypatch)
        with_penalty = gradients(make(penalty=OmegaConf.create(strengths)), batch, monkeypatch)
        weight = 1.0 / estimator.p_hat(batch.rows)
        weight = {
            "naive": 1.0,
            "snips": weight / weight.mean(-1, keepdim=True),
        }.get(objective, weight * estimator.space.density)
        parts = [(batch.rows, weight)] + [(batch.pairs, 1.0)] * (objective == "dr")
        prediction = estimator.networks["prediction"]
        value = formula(prediction, parts, strengths, 3)
        expected = dict(
            zip(
                plain,
                torch.autograd.grad(
                    value.sum(),
                    list(prediction.parameters()),
                    allow_unused=True,
                    materialize_grads=True,
                ),
                strict=True,
            )
        )
        for name, g in expected.items():
            torch.testing.assert_close(
                with_penalty[name] - plain[name],
                g,
                rtol=0,
                atol=1e-6 if strengths is EACH else 1e-13,
                msg=name,
            )


@pytest.mark.parametrize("strengths", [ONE, EACH], ids=["one", "each"])
def test_feature_columns_are_looked_up_by_every_row_as_far_as_they_are_in_it(
    strengths, optimizer, float64, monkeypatch
):
    g = torch.Generator().manual_seed(2)
    users = torch.randn(N_USERS + 2, 3, generator=g) * 5 + 1
    items = torch.bernoulli(torch.full((N_ITEMS, 4), 0.4), generator=g)
    space = PairSpace(*make_log(), N_USERS, N_ITEMS, [0, 1, 2], features=(users, items))
    network = FactorizationMachine(space.sizes, dim=3, purpose="prediction").double()
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=g)
    estimator = Estimator(space, {"prediction": network}, form=PseudoLabel(), bins=Bins())
    batch = BatchSampler(space, "test", 12, 0).chunk(0, 1)[0]
    make = partial(PredictionLearner, estimator, optimizer=optimizer, objective=Naive())
    plain = gradients(make(), batch, monkeypatch)
    penalised = gradients(make(penalty=OmegaConf.create(strengths)), batch, monkeypatch)
    keys = space.keys
    for side, seen in (("user", keys // N_ITEMS), ("item", keys % N_ITEMS)):
        columns = getattr(network, f"{side}_columns")
        x = columns.table[seen.unique()]  # [n, d]: the users, or items, of the log
        for name, strength in (("linear", strengths["biases"]), ("factors", strengths["rows"])):
            weight = getattr(columns, name)
            of_row = torch.einsum("nc,rck->rn", x.square(), weight.square())
            value = (torch.as_tensor(strength) * of_row.mean(-1)).sum()
            key = f"{side}_columns.{name}"
            torch.testing.assert_close(
                penalised[key] - plain[key],
                torch.autograd.grad(value, weight)[0],
                rtol=1e-6,  # the columns are float32
                atol=1e-6,
                msg=key,
            )


def test_the_propensity_takes_it(float64, monkeypatch):
    estimator = make_estimator("mf")
    batch = BatchSampler(estimator.space, "test", 0, 40).chunk(0, 1)[0]
    make = partial(
        PropensityLearner, estimator, optimizer=partial(RowAdam, lr=0.1), loss=cross_entropy
    )
    plain = gradients(make(), batch, monkeypatch)
    penalised = gradients(make(penalty=ONE), batch, monkeypatch)
    network = estimator.networks["propensity"]
    value = formula(network, [(batch.pairs, 1.0)], ONE, 3).sum()
    for name, g in zip(
        ("user.weight", "item.weight"),
        torch.autograd.grad(value, [network.user.weight, network.item.weight]),
        strict=True,
    ):
        torch.testing.assert_close(penalised[name] - plain[name], g, rtol=0, atol=1e-13)


def test_imputations_take_it_with_the_weights_of_their_loss(optimizer, float64, monkeypatch):
    estimator = make_estimator("mf")
    batch = BatchSampler(estimator.space, "test", 40, 0).chunk(0, 1)[0]
    make = partial(
        ImputationLearner, estimator, optimizer=optimizer, omega=omega_mrdr, network="prediction"
    )
    plain = gradients(make(), batch, monkeypatch)
    penalised = gradients(make(penalty=ONE), batch, monkeypatch)
    weight = estimator.space.density * omega_mrdr(estimator.p_hat(batch.rows))
    network = estimator.networks["prediction"]
    value = formula(network, [(batch.rows, weight)], ONE, 3).sum()
    named = dict(network.named_parameters())
    tables = [name for name in named if named[name].ndim == 2 and "global" not in name]
    for name, g in zip(
        tables,
        torch.autograd.grad(value, [named[t] for t in tables], allow_unused=True),
        strict=True,
    ):
        if g is not None:
            torch.testing.assert_close(penalised[name] - plain[name], g, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": -0.1}, "penalty.rows must be at least 0"),
        ({"biases": float("nan")}, "penalty.biases must be at least 0"),
        ({"rows": [0.1, float("inf"), 0.1]}, "penalty.rows must be at least 0"),
        ({"rows": [0.1, 0.2]}, "penalty.rows has 2 values for 3 replicas"),
        ({"row": 0.1}, "penalty has no row; it takes rows and biases"),
    ],
    ids=str,
)
def test_wrong_strengths_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        PredictionLearner(
            make_estimator("mf"),
            optimizer=partial(ReplicaAdam),
            objective=Naive(),
            penalty=wrong,
        )
