"""Small worlds on which the tests of this folder train what the configurations describe."""

import torch
from omegaconf import open_dict

from upo.pairs import BatchSampler, PairSpace
from upo.runs.assembly import build_estimator
from upo.runs.compose import composed
from upo.runs.experiment import Experiment

WORLD = [
    "backbone=mf_plain",
    "fit=fixed",
    "dataset=synthetic",
    "dataset.n_users=24",
    "dataset.n_items=20",
    "dataset.density=0.3",
    "dataset.test_per_user=4",
    "logger=csv",
    "trainer.accelerator=cpu",
]


def configure(name, *overrides):
    return composed([f"estimator={name}", *WORLD, *overrides])


def cut_batches(config):
    """Batches of 64 at most."""
    for plan in filter(None, config.estimator.stages.values()):
        for batch in ("observed_batch", "pair_batch"):
            if plan.get(batch):
                plan[batch] = min(plan[batch], 64)


def shorten(config):
    """Every stage cut to two epochs of a few small steps, the last to 2 x 10."""
    cut_batches(config)
    with open_dict(config):
        for stage, plan in config.estimator.stages.items():
            if plan is not None:
                plan.update(epochs=2, steps=10 if stage == "debias" else 5)


def train(name, *overrides, seeds=(0,)):
    config = configure(name, *overrides)
    shorten(config)
    config.seeds = list(seeds)
    return Experiment(config, progress=False).run()


def built(name, *overrides, seeds=(0, 1), change=None):
    """Untrained networks of an estimator with a batch of O and all of D."""
    config = configure(name, *overrides)
    if change is not None:
        change(config)
    config.seeds = list(seeds)
    experiment = Experiment(config, progress=False)
    space = PairSpace.of(experiment.datamodule.data, experiment.seeds, 0.1)
    estimator = build_estimator(config.estimator, space)
    return config, estimator, BatchSampler(space, "test", 64, space.n_pairs)


def everything(estimator):
    """Logits of every role on all of D, for each replica."""
    space = estimator.space
    index = torch.arange(space.n_pairs).expand(space.replicas, -1)
    pairs = space.pairs(index, space.n_pairs)
    roles = [role for role in estimator.networks if role not in ("balance", "adversary")]
    with torch.no_grad():
        return {role: estimator.logit(role, pairs) for role in roles}


def check_row(name):
    """Two epochs are finite, and a stack of two seeds equals each seed alone."""
    stack = train(name, seeds=(3, 8))
    for stage in stack.stages:
        for key, values in stage.history.logs.items():
            assert torch.isfinite(torch.stack(values)).all(), key
    assert {"ece", "auc"} <= set(stack.metrics)
    assert ("dr_bias" in stack.metrics) == (stack.estimator.estimate is not None)
    assert all(torch.isfinite(v).all() for v in stack.metrics.values())
    together = everything(stack.estimator)
    for r, seed in enumerate((3, 8)):
        alone = everything(train(name, seeds=(seed,)).estimator)
        for role, logit in alone.items():
            # float32 sums of different shapes, over at most 35 steps
            torch.testing.assert_close(together[role][r], logit[0], rtol=1e-5, atol=1e-5)


def roughened(estimator, seed=0, scale=1.0):
    """Give every parameter and buffer of the networks plain random values."""
    generator = torch.Generator().manual_seed(seed)
    for role, network in estimator.networks.items():
        for p in network.parameters():
            p.data = torch.randn(p.shape, generator=generator).to(p.dtype) * scale
        estimator.stepped(str(role))
    return estimator
