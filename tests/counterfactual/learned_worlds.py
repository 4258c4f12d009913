"""Worlds whose logs are drawn again and again, and how often the intervals hold the truth.

Run as a script it prints the table of ``docs/counterfactual.md``.
"""

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

import upo
from upo.data.world import SyntheticWorld

SIZE = 150
WORLDS = [(seed, spoiled) for seed in (0, 1, 2) for spoiled in (1.0, 4.0)]
FOLDS, PRIOR = 5, 1.0


def standard(x):
    return (x - x.mean()) / x.std()


def shift(logit, density):
    """The logit moved to a mean probability."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(logit + middle).mean() < density else (low, middle)
    return logit + low


def expit(x):
    return 1 / (1 + np.exp(-x))


def whole(seed, spoiled, right, size=SIZE):
    """All pairs with score, imputed value, rating, and the propensity that only the draw knows.

    Where the model of propensities is ``right``, their logit is a term of the user and one of the
    item, both of which go along with what pleases; otherwise the rating itself decides, too.
    """
    world = SyntheticWorld(size, size, density=0.2, seed=seed)
    users, items = torch.arange(size).repeat_interleave(size), torch.arange(size).repeat(size)
    liked = world.preference(users, items).numpy()
    draw = np.random.default_rng(seed)
    logit = np.log(liked / (1 - liked))
    frame = pd.DataFrame({"user": users.numpy(), "item": items.numpy()})
    frame["score"] = expit(0.6 * logit + draw.normal(0, spoiled, len(logit)))
    frame["imputed"] = (0.8 * liked + 0.1 + draw.normal(0, 0.05, len(logit))).clip(0.01, 0.99)
    frame["rating"] = world.rating(users, items).numpy()
    if right:
        table = logit.reshape(size, size)
        terms = [0.42 * (standard(table.mean(axis)) + draw.normal(size=size)) for axis in (1, 0)]
        frame["p"] = expit(shift((terms[0][:, None] + terms[1]).ravel(), 0.15))
    else:
        frame["p"] = world.propensity(users, items).numpy()
    return frame


def additive(observed, cells):
    """Maximum likelihood of the additive logit on some cells, with a prior of variance 1."""
    n = len(observed)
    beta = np.zeros(1 + 2 * n)
    beta[0] = np.log(observed[cells].mean() / (1 - observed[cells].mean()))
    prior = np.r_[0.0, np.full(2 * n, PRIOR)]
    for _ in range(15):
        p = expit(beta[0] + beta[1 : n + 1, None] + beta[n + 1 :])
        r, w = (observed - p) * cells, p * (1 - p) * cells
        hessian = np.diag(np.r_[w.sum(), w.sum(1), w.sum(0)] + prior)
        hessian[0, 1:] = hessian[1:, 0] = np.r_[w.sum(1), w.sum(0)]
        hessian[1 : n + 1, n + 1 :], hessian[n + 1 :, 1 : n + 1] = w, w.T
        step = np.linalg.solve(hessian, np.r_[r.sum(), r.sum(1), r.sum(0)] - prior * beta)
        beta += step
        if np.abs(step).max() < 1e-6:
            break
    return expit(beta[0] + beta[1 : n + 1, None] + beta[n + 1 :])


@dataclass
class Additive:
    """The exact additive propensity, for ``upo.evaluate``: it costs milliseconds."""

    seed: int
    size: int = SIZE
    user: str = "user"
    item: str = "item"
    table: np.ndarray | None = None

    @property
    def fitted(self):
        return self.table is not None

    def grid(self, log):
        observed = np.zeros((self.size, self.size))
        observed[np.asarray(log["user"]), np.asarray(log["item"])] = 1.0
        return observed

    def fit(self, log):
        self.table = additive(self.grid(log), np.ones((self.size, self.size), dtype=bool))
        return self

    def propensity(self, pairs):
        return self.table[np.asarray(pairs["user"]), np.asarray(pairs["item"])]

    def cross_fit(self, log):
        observed = self.grid(log)
        fold = np.random.default_rng(self.seed).integers(0, FOLDS, observed.shape)
        p = np.empty_like(observed)
        for number in range(FOLDS):
            p[fold == number] = additive(observed, fold != number)[fold == number]
        return p[np.asarray(log["user"]), np.asarray(log["item"])]


def real(seed):
    """The same model as the package learns it."""
    return upo.Propensity("additive", seeds=[seed], **{"trainer.accelerator": "cpu"})


def answers(frame, seed, way, learner):
    """What ``upo.evaluate`` says of one log, and the truth over its D."""
    observed = np.random.default_rng(seed).random(len(frame)) < frame.p
    log = frame.loc[observed, ["user", "item", "rating", *(["p"] if way == "known" else [])]]
    inside = np.ones(len(frame), dtype=bool)
    propensity = "p" if way == "known" else learner(seed)
    if way.startswith("split"):
        log = upo.held_out(log, 0.3, seed)
        inside[log.train.index] = False
        if way == "split, train":
            propensity = propensity.fit(log.train)
    scores = frame.drop(columns=["rating", "p"])
    found = upo.evaluate(
        log, scores, propensity, estimator=["ips", "snips", "dr"], imputed="imputed"
    )
    d = frame[inside]
    rest = upo.evaluate(d, d, np.ones(len(d)), estimator="snips").set_index("metric").estimate
    return found.assign(truth=found.metric.map(rest))


def judged(found):
    """Whether the intervals hold the truth, the errors, and the standard errors they claim."""
    return found.assign(
        held=(found.low <= found.truth) & (found.truth <= found.high),
        error=found.estimate - found.truth,
        half=(found.high - found.low) / 2 / 1.96,
    )


def coverage(world, logs, way, learner=Additive, first=0):
    """Each log's answers, and whether the intervals hold the truth."""
    frame = whole(*world)
    return judged(pd.concat([answers(frame, first + n, way, learner) for n in range(logs)]))


def summary(found):
    by = found.groupby(["metric", "estimator"], sort=False)
    return pd.DataFrame(
        {
            "covered": by.held.mean(),
            "bias": by.error.mean() / by.error.std(),
            "half over deviation": by.half.mean() / by.error.std(),
        }
    )


def drawn(frames, given):
    """The answers of each world, log after log, until there are enough or the time is up."""
    learner = real if given.real else partial(Additive, size=given.size)
    found = {number: [] for number in frames}
    start = time.process_time()
    for n in range(given.logs):
        for number, frame in frames.items():
            found[number].append(answers(frame, n, given.way, learner).assign(log=n))
        done = pd.concat({number: pd.concat(f) for number, f in found.items()}, names=["world"])
        if given.out:
            done.to_csv(given.out)
        if time.process_time() - start > 60 * given.minutes:
            break
    return judged(done)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=1000, help="of each world")
    parser.add_argument("--minutes", type=float, default=np.inf, help="of CPU; then there are less")
    parser.add_argument("--size", type=int, default=SIZE, help="users, and items")
    parser.add_argument(
        "--way", default="whole", help="known, whole, 'split, whole', 'split, train'"
    )
    parser.add_argument("--wrong", action="store_true", help="propensities depend on the rating")
    parser.add_argument(
        "--real", action="store_true", help="upo.Propensity('additive') learns them"
    )
    parser.add_argument("--worlds", type=int, nargs="*", default=range(len(WORLDS)))
    parser.add_argument("--out", help="a CSV file of all answers")
    given = parser.parse_args()
    warnings.simplefilter("ignore", upo.UselessWeightsWarning)
    frames = {n: whole(*WORLDS[n], not given.wrong, given.size) for n in given.worlds}
    found = drawn(frames, given)
    each = found.groupby("world").apply(summary)
    table = each.groupby(["metric", "estimator"], sort=False)
    logs = len(found) // table.ngroups
    mean = table.mean()
    mean.insert(1, "error", (mean.covered * (1 - mean.covered) / logs) ** 0.5)
    sys.stdout.write(
        f"{logs} logs\n"
        + pd.concat({"mean": mean, "lowest": table.min(), "highest": table.max()}, axis=1)
        .sort_index(axis=1, level=1, sort_remaining=False)
        .to_string(float_format="{:.3f}".format)
        + "\n"
    )


if __name__ == "__main__":
    main()
