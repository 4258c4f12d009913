"""Two million skewed rows, 100,000 users x 20,000 items, as a person's own table: what is learned?

The log is that of an ``ExposureWorld`` as heavy-tailed as the battery's, so every propensity is
known. ``upo.Propensity`` and ``upo.fit(estimator="upo_dr")`` are run with their defaults, each in a
process of its own; printed are time, memory, the rank correlation of learned and true propensities,
and their ratio in fifths of users and items. Nothing is asserted.

A propensity of the world depends on the pair's own rating, of which the log of a pair that was not
observed says nothing: ``ceiling`` is the correlation of the margins of the true propensities.
``--epochs`` cuts every stage short, for the time of an epoch and for memory alone.

python tests/benchmarks/two_million.py [--scale .1] [--only propensity fit]
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch
from benchmarks.scale import peak, say

import upo
from upo.data.battery import PLANS
from upo.data.exposure_plan import WorldPlan
from upo.data.exposure_world import ExposureWorld

USERS, ITEMS, ROWS = 100_000, 20_000, 2_000_000
PAIRS = 1_000_000  # uniform ones that are asked
PROBES = 200  # users or items over which the frequency of an item or user is known
PIECES = ("propensity", "fit")


def plan(scale: float) -> WorldPlan:
    """The world at a share of its rows: the density stays, so does the skew."""
    users, items = (round(n * scale**0.5) for n in (USERS, ITEMS))
    return dataclasses.replace(
        PLANS["heavy_tail"], n_users=users, n_items=items, density=ROWS / (USERS * ITEMS)
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(pd.Series(a).rank(), pd.Series(b).rank())[0, 1])


def true(world: ExposureWorld, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    return world.propensity(torch.tensor(users), torch.tensor(items)).numpy()


def expected(world: ExposureWorld, side: str) -> np.ndarray:
    """Mean true propensity of every user or item over some of the others."""
    draw = np.random.default_rng(1)
    size, other = world.n_users, world.n_items
    if side == "item":
        size, other = other, size
    mean = np.zeros(size)
    for number in draw.integers(0, other, PROBES):
        mine, its = np.arange(size), np.full(size, number)
        mean += true(world, *((mine, its) if side == "user" else (its, mine))) / PROBES
    return mean


def fifths(side: str, mean: np.ndarray, pairs: pd.DataFrame, rows: pd.Series, size: int) -> None:
    """Learned over true and over observed, from the rarest fifth of users or items to the rest."""
    known = np.sort(rows.unique())
    fifth = pd.Series((pd.Series(mean[known]).rank(method="first").to_numpy() - 1) * 5, index=known)
    fifth //= len(known)
    by = pairs[["p_hat", "p"]].groupby(pairs[side].map(fifth)).sum() * (size / len(pairs))
    observed = rows.map(fifth).value_counts().sort_index()
    say(f"  fifths of {side}s, rarest first: rows {' '.join(f'{n:,}' for n in observed)}")
    for name, ratio in (
        ("learned over true", by.p_hat / by.p),
        ("observed over true", observed / by.p),
        ("learned over observed", by.p_hat / observed),
    ):
        say(f"    {name:22} {' '.join(f'{x:.3f}' for x in ratio)}")


def learn(o: argparse.Namespace, frame: pd.DataFrame) -> object:
    settings = {"trainer.accelerator": "cpu"}
    if o.epochs:
        stages = ("propensity", "game") + ("debias",) * (o.piece == "fit")
        settings |= {f"estimator.stages.{stage}.epochs": o.epochs for stage in stages}
    if o.piece == "propensity":
        return upo.Propensity(o.kind, progress=o.progress, **settings).fit(frame)
    return upo.fit(frame, estimator="upo_dr", seeds=1, progress=o.progress, **settings)


def run(o: argparse.Namespace) -> None:
    """One piece: fit, then ask."""
    frame = pd.read_parquet(o.log)
    before = peak() / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = learn(o, frame)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    name = f"Propensity({o.kind!r})" if o.piece == "propensity" else "upo_dr"
    say(
        f"{name}: fit {cpu / 60:.1f} min of CPU, {wall / 60:.1f} min wall; "
        f"peak {peak() / 1024:.2f} GiB, {before:.2f} before"
    )
    for warning in said:
        say(f"  warned: {warning.message}")
    fitted = getattr(model, "model", model)
    shown = {k: x for k, x in fitted.metrics.iloc[0].dropna().items() if isinstance(x, float)}
    say("  " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()))
    world = ExposureWorld(plan(o.scale))
    draw = np.random.default_rng(0)
    # ids of the log alone can be asked; they are numbers
    known = [np.sort(frame[side].unique()) for side in ("user", "item")]
    users, items = (draw.choice(ids, PAIRS) for ids in known)
    pairs = pd.DataFrame({"user": users, "item": items})
    wall = time.perf_counter()
    p_hat = model.propensity(pairs).to_numpy()
    say(f"  {PAIRS:,} pairs asked in {time.perf_counter() - wall:.1f} s")
    p = true(world, users, items)
    pairs["p_hat"], pairs["p"] = p_hat, p
    rows = frame.sample(min(len(frame), PAIRS), random_state=0)
    seen = true(world, rows.user.to_numpy(), rows.item.to_numpy())
    say(
        f"  Spearman of learned and true propensities: {spearman(p_hat, p):.3f} over uniform "
        f"pairs, {spearman(model.propensity(rows).to_numpy(), seen):.3f} over observed ones"
    )
    means = {side: expected(world, side) for side in ("user", "item")}
    additive = means["user"][users] * means["item"][items]
    say(f"  ceiling, margins of the true propensities themselves: {spearman(additive, p):.3f}")
    say(f"  learned over true, all: {p_hat.sum() / p.sum():.3f}")
    for side in ("item", "user"):
        fifths(side, means[side], pairs, frame[side], len(known[0]) * len(known[1]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows and of D")
    parser.add_argument("--only", nargs="+", choices=PIECES, default=PIECES)
    parser.add_argument("--kind", default="upo", help="of upo.Propensity")
    parser.add_argument("--epochs", type=int, default=0, help="of each stage; 0 for the defaults")
    parser.add_argument("--progress", action="store_true", help="draw bars")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    o = parser.parse_args(arguments)
    if o.piece:
        run(o)
        return
    say(f"threads {os.environ.get('OMP_NUM_THREADS')}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        log = ExposureWorld(plan(o.scale)).log()
        frame = pd.DataFrame({"user": log.users, "item": log.items, "rating": log.ratings})
        path = Path(folder) / "log.parquet"
        frame.sample(frac=1.0, random_state=0).to_parquet(path, index=False)
        say(
            f"{len(frame):,} rows, {frame.user.nunique():,} of {log.n_users:,} users, "
            f"{frame.item.nunique():,} of {log.n_items:,} items, made in "
            f"{time.process_time() - start:.0f} s of CPU"
        )
        del log, frame
        for piece in o.only:
            given = [f"--{name}={getattr(o, name)}" for name in ("scale", "kind", "epochs")]
            given += [f"--piece={piece}", f"--log={path}", *["--progress"] * o.progress]
            subprocess.run([sys.executable, __file__, *given], check=True)


if __name__ == "__main__":
    main()
