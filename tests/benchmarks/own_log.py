"""MovieLens 100K as a person's own log: what do the defaults give? Reads it under $UPO_DATA_DIR.

A random fifth of the rows tests; ratings of at least 4 are positive. Printed are, one process each:

- ``fit``: held-out log-loss and AUC of ``upo.fit(log)`` beside those of a user-and-item model, a
  logistic regression on both whose ridge is chosen on a tenth of the log, with time and memory;
- ``rating``: RMSE and MAE with ``target="rating"``, beside the mean and smoothed means of both;
- ``propensity``: learned over observed pairs in fifths of the items, rarest first, and what
  ``upo.audit`` finds in the log, out of fold, and of rows kept back, for each correction of
  ``upo.Propensity``.

Nothing is asserted. python tests/benchmarks/own_log.py [--only fit] [--estimators naive upo_dr]
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch
from benchmarks.scale import peak, say

import upo
from upo.functional.ranking import auc

PIECES = ("fit", "rating", "propensity")
LABEL = 4
RIDGES = (0.3, 1.0, 3.0, 10.0)


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The ratings, and a table of users and one of films with what is known of them."""
    log = pd.read_csv(folder / "u.data", sep="\t", names=["user", "item", "rating", "time"])
    users = pd.read_csv(folder / "u.user", sep="|", names=["user", "age", "sex", "job", "zip"])
    films = pd.read_csv(folder / "u.item", sep="|", header=None, encoding="latin-1")
    genres = films.iloc[:, 5:].add_prefix("genre ")
    genres.insert(0, "item", films[0])
    return log.drop(columns="time"), users.drop(columns="zip"), genres


def split(log: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test: a fifth of the rows, drawn at random, of ids that train has."""
    tests = np.random.default_rng(seed).random(len(log)) < 0.2
    train, test = log[~tests], log[tests]
    known = test.user.isin(train.user) & test.item.isin(train.item)
    return train, test[known]


def user_and_item_model(train: pd.DataFrame, test: pd.DataFrame) -> tuple[float, np.ndarray]:
    """The ridge that a tenth of the rows prefers, and the probabilities of the test rows."""
    held = np.random.default_rng(0).random(len(train)) < 0.1
    loss = {r: log_loss(additive(train[~held], train[held], r), train[held]) for r in RIDGES}
    ridge = min(loss, key=loss.__getitem__)
    return ridge, additive(train, test, ridge)


def additive(train: pd.DataFrame, test: pd.DataFrame, ridge: float) -> np.ndarray:
    """Logistic regression on user and item, penalised by ridge times the squared terms."""
    u, i = (torch.tensor(train[c].to_numpy()) for c in ("user", "item"))
    y = torch.tensor((train.rating >= LABEL).to_numpy(), dtype=torch.float64)
    a, b = (torch.zeros(int(x.max()) + 1, dtype=torch.float64, requires_grad=True) for x in (u, i))
    c = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([a, b, c], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logit = a[u] + b[i] + c
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, y, reduction="sum")
        loss = loss + ridge / 2 * (a.square().sum() + b.square().sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        user, item = (torch.tensor(test[name].to_numpy()) for name in ("user", "item"))
        return torch.sigmoid(a[user] + b[item] + c).numpy()


def log_loss(p: np.ndarray, rows: pd.DataFrame) -> float:
    y = (rows.rating >= LABEL).to_numpy()
    return float(-np.log(np.where(y, p, 1 - p)).mean())


def figures(p: np.ndarray | pd.Series, rows: pd.DataFrame) -> tuple[float, float]:
    """Log-loss and AUC of probabilities."""
    p = np.asarray(p, dtype=np.float64)
    area = auc(torch.tensor(p), torch.tensor((rows.rating >= LABEL).to_numpy()))
    return log_loss(p, rows), float(area)


def judged(name: str, p: np.ndarray | pd.Series, rows: pd.DataFrame, more: str = "") -> None:
    loss, area = figures(p, rows)
    say(f"{name:28} log-loss {loss:.4f}, AUC {area:.4f}{more}")


def timed(make) -> tuple[object, str]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = make()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return made, f"{cpu:.0f} s of CPU, {wall:.0f} s wall, peak {peak() / 1024:.2f} GiB"


def fit(o: argparse.Namespace, log: pd.DataFrame, *known: pd.DataFrame) -> None:
    """Predictions beside those of users and items alone."""
    train, test = split(log, o.seed)
    say(f"{len(train):,} rows of train, {len(test):,} of test")
    ridge, p = user_and_item_model(train, test)
    judged(f"user + item, ridge {ridge:g}", p, test)
    for estimator in o.estimators:
        model, cost = timed(
            lambda name=estimator: upo.fit(
                train, estimator=name, seeds=o.seeds, label_threshold=LABEL, progress=o.progress
            )
        )
        judged(f"{estimator}, seeds {o.seeds}", model.predict(test), test, f"; {cost}")


def smoothed_means(train: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    """Ratings by item, then by what is left by user, shrunk by as many rows as 10 and 5."""
    mean = train.rating.mean()
    left, found = train.rating - mean, pd.Series(mean, index=test.index)
    for name, more in (("item", 10), ("user", 5)):
        by = left.groupby(train[name])
        term = by.sum() / (by.count() + more)
        left = left - train[name].map(term)
        found = found + test[name].map(term)
    return found


def rating(o: argparse.Namespace, log: pd.DataFrame, *known: pd.DataFrame) -> None:
    """Predicted ratings beside means."""
    train, test = split(log, o.seed)
    found = {"mean": train.rating.mean(), "user + item means": smoothed_means(train, test)}
    for name in o.estimators:
        model = upo.fit(train, estimator=name, seeds=o.seeds, target="rating", progress=o.progress)
        found[f"{name}, seeds {o.seeds}"] = model.predict(test)
    for name, values in found.items():
        error = test.rating - values
        say(f"{name:28} RMSE {error.pow(2).mean() ** 0.5:.4f}, MAE {error.abs().mean():.4f}")


def fifths(of: pd.DataFrame) -> pd.Series:
    """The fifth of the items that each is in, the rarest in 0."""
    size = of.groupby("item").size()
    return pd.Series((size.rank(method="first").to_numpy() - 1) * 5 // len(size), index=size.index)


def ratios(
    model: upo.Propensity, train: pd.DataFrame, rows: pd.DataFrame, share: float
) -> "pd.Series[float]":
    """Learned over observed by fifths of the items, of rows that are this many times the log."""
    fifth = fifths(train)
    grid = pd.MultiIndex.from_product([train.user.unique(), fifth.index], names=["user", "item"])
    grid = grid.to_frame(index=False)
    expected = share * model.predict(grid).groupby(grid["item"].map(fifth)).sum()
    return expected / rows["item"].map(fifth).value_counts().sort_index()


def beside(model: upo.Propensity, train: pd.DataFrame, rows: pd.DataFrame, share: float) -> str:
    """The same as text, with the standard errors that the counts have."""
    counts = rows["item"].map(fifths(train)).value_counts().sort_index()
    found = ratios(model, train, rows, share)
    return " ".join(f"{x:.2f} (+- {x / n**0.5:.2f})" for x, n in zip(found, counts, strict=True))


def audited(
    model: upo.Propensity, train: pd.DataFrame, test: pd.DataFrame, unobserved: int
) -> dict[str, pd.DataFrame]:
    """Pairs of the log as fitted and out of fold, and rows kept back among pairs it has not."""
    found = {"as fitted": model.pairs(unobserved)}
    if model.model.out_of_fold is not None:
        found["out of fold"] = model.pairs(unobserved, out_of_fold=True)
    grid = pd.MultiIndex.from_product([train.user.unique(), train.item.unique()])
    logged, kept = (pd.MultiIndex.from_frame(x[["user", "item"]]) for x in (train, test))
    left = grid.difference(logged, sort=False).set_names(["user", "item"])
    pairs = left.to_frame(index=False)
    share = len(test) / (len(train) + len(test))
    split = upo.HeldOut(train, test, share, "user", "item")
    pairs["observed"] = left.isin(kept).astype(int)
    pairs["propensity"] = split.from_train(model.predict(pairs)).clip(1e-9, 1)
    others = pairs[pairs.observed == 0].sample(unobserved, random_state=0)
    each = (len(pairs) - len(test)) / unobserved
    rows = pairs[pairs.observed == 1]
    found["of rows kept back"] = pd.concat([rows.assign(weight=1.0), others.assign(weight=each)])
    return found


def propensity(o: argparse.Namespace, log: pd.DataFrame, *known: pd.DataFrame) -> None:
    """Learned over observed, and findings, for each correction."""
    users, films = known
    train, test = split(log, o.seed)
    for kind in o.kinds:
        for calibrate in o.calibrate:
            model, cost = timed(
                lambda kind=kind, by=calibrate: upo.Propensity(
                    kind, calibrate=by, progress=o.progress
                ).fit(train, user_features=users, item_features=films)
            )
            say(f"Propensity({kind!r}, calibrate={calibrate!r}): {cost}")
            say("  learned over observed, fifths of the items, rarest first:")
            say(f"    in the log {beside(model, train, train, 1.0)}")
            say(f"    held out   {beside(model, train, test, len(test) / len(train))}")
            for what, pairs in audited(model, train, test, o.unobserved).items():
                told = pairs.merge(users, on="user").merge(films, on="item")
                for by, table in (("user and item", pairs), ("features, too", told)):
                    audit = upo.audit(table)
                    kinds = audit.findings["kind"].value_counts().to_dict()
                    say(f"  audit {what}, by {by}: {audit.n_found} findings {kinds}")
                    if o.show:
                        say(audit.findings["sentence"].head(o.show).to_string())


def main() -> None:
    """Run the pieces, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PIECES, default=PIECES)
    parser.add_argument("--estimators", nargs="+", default=["naive", "ips", "upo_dr"])
    parser.add_argument("--kinds", nargs="+", default=["additive", "upo"])
    parser.add_argument("--calibrate", nargs="+", default=["none", "isotonic", "gbdt"])
    parser.add_argument("--unobserved", type=int, default=100_000)
    parser.add_argument("--show", type=int, default=0, help="findings to print")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.piece is None:
        for piece in o.only:
            subprocess.run([sys.executable, *sys.argv, "--piece", piece], check=True)
        return
    warnings.simplefilter("ignore")
    piece = {"fit": fit, "rating": rating, "propensity": propensity}[o.piece]
    piece(o, *tables(Path(os.environ["UPO_DATA_DIR"]) / "ml-100k"))


if __name__ == "__main__":
    main()
