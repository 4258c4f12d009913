"""Small runs composed from the repository's configuration."""

import torch
from hydra.utils import instantiate
from omegaconf import open_dict

import upo.runs.compose
from upo.evaluation.mar import MarSet
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled
from upo.training.trainer import make_trainer

STEPS = 20  # an epoch


def composed(estimator, *overrides, epochs=2):
    """The configuration of a short run; batches that do not divide what they are drawn from."""
    world = [
        "backbone=mf_plain",
        "fit=fixed",
        "dataset=synthetic",
        "dataset.n_users=40",
        "dataset.n_items=30",
        "dataset.density=0.2",
    ]
    words = [*world, f"estimator={estimator}", "trainer.accelerator=cpu", *overrides]
    config = upo.runs.compose.composed(words)
    with open_dict(config):
        for plan in filter(None, config.estimator.stages.values()):
            plan.update(epochs=2, steps=STEPS, patience=0)
            plan.pair_batch = 150 if plan.get("pair_batch") else 0
        config.estimator.stages.debias.update(epochs=epochs, observed_batch=37)
    return config


def build(config, seeds):
    """Estimator and modules of a configuration, nothing trained."""
    data, protocol = instantiate(config.dataset), instantiate(config.protocol)
    protocol.use(MarSet(data.data, data.k))
    space = PairSpace.of(data.data, seeds, protocol.holdout)
    estimator = build_estimator(config.estimator, space)
    modules = [
        build_stage(name, config.estimator, estimator, protocol)
        for name in scheduled(config.estimator)
    ]
    return estimator, modules


def fit(config, module, callbacks=()):
    trainer = make_trainer(
        config.trainer,
        max_epochs=module.plan.epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module)


def train(config, seeds):
    """The last parameters of every stage, no epoch selected."""
    estimator, modules = build(config, seeds)
    for module in modules:
        fit(config, module)
        for role in estimator.networks:
            estimator.stepped(role)
    state = {k: v.clone() for k, v in estimator.networks.state_dict().items()}
    assert all(torch.isfinite(v).all() for v in state.values())
    return estimator, state
