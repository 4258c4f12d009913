"""A model card: what a saved model is, what it was trained on, and what it is worth."""

import datetime
import math
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from upo.core.text import markdown
from upo.errors import visible
from upo.pairs import PairSpace

FILE = "model_card.md"
_HALF = "auc"  # its constant is known
_WEIGHTS = {
    "clip_share": "share of the log's rows below the clip",
    "effective_sample_size": "effective sample size of the weights, as a share of the rows",
    "ece": "calibration error (ECE) over D",
    "bmse": "balance (BMSE) over D",
}


def card(
    config: DictConfig,
    space: PairSpace,
    metrics: pd.DataFrame,
    *,
    about: Mapping[str, str],
    target: str,
    columns: tuple[str, str],
    verdict: str | None,
) -> str:
    """The card as Markdown; whatever comes from a file or an id is escaped.

    Args:
        config: Of the estimator.
        space: Its pair space.
        metrics: A row for each seed.
        about: ``data``, ``protocol``, ``command``, as far as they are known.
        target: What predictions are of.
        columns: Names of the user and the item.
        verdict: Of an audit, if there was one.
    """
    lines = [f"# Model card: {markdown(config.name)}", ""]
    what = {
        "positive": "P(positive rating)",
        "rating": "the rating",
        "observed": "P(observed)",
    }.get(target, target)
    lines += [
        f"Predicts {markdown(what)} of a pair of {' and '.join(map(markdown, columns))}.",
        "",
        f"Saved {datetime.date.today().isoformat()} by upo {version('upo')}, torch "
        f"{version('torch')}, numpy {version('numpy')}, Python {platform.python_version()}.",
        "",
        "## How it was made",
        "",
        *_quoted(about.get("command", "not known: the model was loaded from a file without it")),
        "",
        f"Protocol: {markdown(about.get('protocol', 'not known'))}. "
        f"Seeds: {', '.join(str(int(seed)) for seed in space.seeds)}; their mean answers.",
        "",
        "## Data",
        "",
        *_quoted(about.get("data", "")),
        *([""] if about.get("data") else []),
        f"{space.n_users:,} users x {space.n_items:,} items, {space.n_observed:,} observed pairs "
        f"({space.density:.4%} of D).",
        "",
        "## What it is worth",
        "",
        *_worth(metrics),
        "",
        "## Propensities",
        "",
        *_propensities(metrics),
        f"- audit: {markdown_line(verdict)}"
        if verdict
        else "- audit: none was given; `upo.audit(model.pairs())` makes one",
        "",
        "## Use",
        "",
        "    model = upo.load(FOLDER)",
        "    model.predict(pairs)",
        "",
        "Ids that the log did not have are answered by means over the log; the answer's `.attrs` "
        "say how many there were.",
    ]
    return "\n".join(lines) + "\n"


def command(params: Mapping[str, Any]) -> str:
    """The call that fits such a model again.

    >>> command({"estimator": "ips", "seeds": [0], "overrides": {}})
    "upo.fit(train, estimator='ips', seeds=[0])"
    """
    own = params.get("propensity")
    given = own if isinstance(own, dict) else params
    words = [f"{key}={value!r}" for key, value in given.items() if value not in (None, {})]
    if isinstance(own, dict):
        return f"upo.Propensity({', '.join(words)}).fit(log)"
    return f"upo.fit({', '.join(['train', *words])})"


def markdown_line(text: str) -> str:
    """A longer text on one line, escaped word by word."""
    return " ".join(markdown(word) for word in text.split())


def _quoted(text: str) -> Iterator[str]:
    """An indented block, which nothing within it ends."""
    for line in text.split("\n") if text else []:
        yield f"    {visible(line, 1000)}"


def _worth(metrics: pd.DataFrame) -> Iterator[str]:
    """Each measured metric beside that of the constant prediction."""
    rows = []
    for name in metrics:
        values = pd.to_numeric(metrics[name], errors="coerce").dropna()
        text = str(name)
        constant = text.replace("val_", "val_constant_", 1) if text.startswith("val_") else None
        constant = constant or f"constant_{text}"
        if not len(values) or "constant" in text or text in _WEIGHTS:
            continue
        if text in ("seed", "best_epoch", "parameters", "train_seconds", "val_gain_error"):
            continue
        beside = "-"
        if constant in metrics:
            beside = _number(float(pd.to_numeric(metrics[constant]).mean()))
        elif text == _HALF:
            beside = "0.5"
        spread = f" ± {_number(float(values.std()))}" if len(values) > 1 else ""
        rows.append(f"| {markdown(text)} | {_number(float(values.mean()))}{spread} | {beside} |")
    if not rows:
        yield "Nothing was measured."
        return
    yield f"Mean of {len(metrics)} seed{'s' if len(metrics) > 1 else ''} (± standard deviation)."
    yield ""
    yield from ("| metric | model | constant prediction |", "|---|---|---|", *rows)


def _propensities(metrics: pd.DataFrame) -> Iterator[str]:
    for name, words in _WEIGHTS.items():
        if name in metrics:
            value = float(pd.to_numeric(metrics[name], errors="coerce").mean())
            if not math.isnan(value):
                yield f"- {words}: {_number(value)}"


def _number(value: Any) -> str:
    return f"{value:.4g}"
