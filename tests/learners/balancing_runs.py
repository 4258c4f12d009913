"""What the tests of the balancing, kernel, stable and generalised rows share."""

import torch
from hydra.utils import instantiate
from small_estimators import built, cut_batches

from upo.core.optim import ReplicaAdam
from upo.runs.assembly import build_stage
from upo.runs.config import scheduled


def state(estimator):
    """Networks' parameters and buffers as ``[R, ...]`` rows."""
    replicas = estimator.space.replicas
    return {
        name: value.detach().reshape(replicas, -1).clone()
        for name, value in estimator.networks.state_dict().items()
    }


def run_steps(name, *overrides, seeds=(0,), steps=20, stages=None, label=None, change=None):
    """Play the learners of every stage for some steps, without a trainer."""
    config, estimator, _ = built(name, *overrides, seeds=seeds, change=change)
    if label is not None:
        estimator.space.labels.fill_(label)
    protocol = instantiate(config.protocol)
    for stage in scheduled(config.estimator):
        if stages is not None and stage not in stages:
            continue
        module = build_stage(stage, config.estimator, estimator, protocol)
        for learner in module.learners.values():
            learner.on_stage_start()
            learner.on_epoch_start(0, module.sampler)
        for batch in module.sampler.chunk(0, steps):
            for learner in module.learners.values():
                for value in learner.update(batch).values():
                    assert torch.isfinite(value).all()
    return estimator


def check_stack(name, *overrides):
    """A stack of two seeds equals each seed alone after 20 steps of every stage."""
    together = state(run_steps(name, *overrides, seeds=(3, 8), change=cut_batches))
    for r, seed in enumerate((3, 8)):
        alone = state(run_steps(name, *overrides, seeds=(seed,), change=cut_batches))
        for key, value in alone.items():
            # float32 sums of different shapes
            torch.testing.assert_close(together[key][r], value[0], rtol=1e-5, atol=1e-5)


def adam(lr=0.02, weight_decay=0.0):
    """A partial optimiser, as the configurations give one."""
    return lambda params, replicas: ReplicaAdam(
        params, replicas=replicas, lr=lr, weight_decay=weight_decay
    )
