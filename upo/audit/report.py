"""The report of an audit: one page of HTML with its pictures inside, and the tables as CSV."""

from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from upo.audit.calibration import DRAWS, Calibration
from upo.audit.findings import SHARES, Findings
from upo.audit.love import MOST, love_plot
from upo.audit.page import PAGE, facts, paragraph, picture, table
from upo.audit.segments import p_text, signed
from upo.core.files import atomic_file
from upo.core.text import guarded
from upo.errors import InputError, visible
from upo.figures.histogram import propensity_histogram
from upo.figures.reliability import reliability_diagram

SHOWN = 20  # findings listed on the page; the CSV has all


def page(audit: Findings, title: str) -> str:
    """The report; every text of the audited table is escaped."""
    title = visible(title, 200)
    kind = "verdict found" if audit.n_found else "verdict"
    parts = [
        f"<h1><bdi>{escape(title)}</bdi></h1>",
        paragraph(audit.verdict, kind),
        _numbers(audit),
        *_explained(audit),
        *_findings(audit),
        *_next(audit),
        *_calibration(audit),
        *_balance(audit),
        *_weights(audit),
        *_method(audit),
        _made(audit),
    ]
    return PAGE.substitute(title=escape(title), body="\n".join(parts))


def write(audit: Findings, folder: Path, title: str, *, spreadsheet: bool = True) -> Path:
    """Write ``report.html`` and the tables into the folder, each in one move.

    Raises:
        InputError: If the folder cannot be written.
    """
    names = ("findings", "tests", "calibration", "balance", "adversary", "clips")
    tables = {name: getattr(audit, name) for name in names}
    files = {
        f"{name}.csv": (guarded(frame) if spreadsheet else frame).to_csv(index=False)
        for name, frame in tables.items()
    }
    files["report.html"] = page(audit, title)
    for name, text in files.items():
        try:
            with atomic_file(folder / name) as file:
                file.write(text.encode("utf-8"))
        except OSError as error:
            raise InputError(
                f"{folder / name} cannot be written ({error.strerror or error}); choose another "
                f"folder with out=."
            ) from error
    return folder / "report.html"


def _numbers(audit: Findings) -> str:
    pairs, weights = audit.pairs, audit.weights
    rows = f"{len(pairs):,}"
    return facts(
        {
            "rows": rows if not pairs.weighted else f"{rows} for {pairs.total:,.0f} pairs",
            "users, items": f"{len(pairs.user_ids):,}, {len(pairs.item_ids):,}",
            "observed": f"{weights['observed']:,.0f} ({weights['observed'] / pairs.total:.2%})",
            "effective sample size": f"{weights['effective_sample_size']:,.0f}",
            "largest weight": f"{weights['max']:,.1f}",
        }
    )


def _explained(audit: Findings) -> list[str]:
    pairs = audit.pairs
    if not pairs.weighted:
        return []
    return [
        paragraph(
            f"The table has {len(pairs):,} rows, which by their weights stand for "
            f"{pairs.total:,.0f} pairs. Counts are of pairs, unless they are said to be of rows; "
            "tests count rows.",
            "note",
        )
    ]


def _next(audit: Findings) -> list[str]:
    steps = "".join(f"<li>{escape(visible(text, 400))}</li>" for text in audit.next_steps)
    again = "Then audit again: upo.audit(...), on pairs that were not used for fitting."
    return [f"<h2>What to do next</h2><ul>{steps}</ul>", paragraph(again, "note")] if steps else []


def _made(audit: Findings) -> str:
    """How the page came about."""
    names = audit.pairs.names
    columns = {
        "user": names.user,
        "item": names.item,
        "observed": names.observed,
        "propensity": names.propensity,
        "weight": names.weight or "weight, if there is one",
        "features": ", ".join(column.name for column in audit.pairs.columns) or "none",
    }
    settings = {"alpha": audit.alpha, "num_bins": audit.num_bins, "seed": audit.seed}
    clip = "none" if audit.p_min is None else f"{audit.p_min:g}"
    words = [f"{key} {value}" for key, value in columns.items()]
    words += [f"{key}={value}" for key, value in settings.items()]
    today = datetime.now(tz=UTC).date().isoformat()
    return paragraph(
        f"Made on {today} by upo {version('upo')}. Columns and settings: {'; '.join(words)}; "
        f"p_min={clip}.",
        "note",
    )


def _findings(audit: Findings) -> list[str]:
    found = audit.findings
    parts = ["<h2>Where the propensities are most wrong</h2>"]
    if len(found):
        lines = "".join(f"<li><bdi>{escape(text)}</bdi></li>" for text in found.sentence[:SHOWN])
        parts += [f"<ol>{lines}</ol>"]
        if len(found) > SHOWN:
            parts += [paragraph(f"The {len(found) - SHOWN} others are in findings.csv.", "note")]
    else:
        parts += [paragraph("No segment, user or item stands out.")]
    parts += [
        paragraph(
            "Pairs observed against those expected at the given propensities, by falling |z|. "
            "Segments overlap, so one fault may show in several of them.",
            "note",
        ),
        paragraph(
            "Adversaries learn on one half of the pairs where the propensities are wrong: by "
            "features and the propensity, by users and items each for itself, and by which users "
            "meet which items. Their gain on the other half is 0 on average if the propensities "
            "are correct."
        ),
        table(
            audit.adversary,
            {
                "adversary": ("adversary over", str),
                "gain": ("held-out gain", "+.5f"),
                "standard_error": ("null error", ".5f"),
                "p_adjusted": ("adjusted p", _p),
            },
            audit.adversary.p_adjusted <= audit.alpha,
        ),
    ]
    return parts


def _calibration(audit: Findings) -> list[str]:
    figures = [
        picture(_reliability(bins), f"Reliability diagram over {_words(bins.rule)} bins")
        for bins in audit.bins
    ]
    return [
        "<h2>Calibration</h2>",
        f'<div class="pictures">{"".join(figures)}</div>',
        table(
            audit.calibration,
            {
                "rule": ("bins", _words),
                "ece": ("ECE", ".4f"),
                "null_mean": ("mean if correct", ".4f"),
                "null_95": ("95 % below, if correct", ".4f"),
                "debiased": ("ECE less that mean", ".4f"),
                "p_adjusted": ("adjusted p", _p),
            },
            audit.calibration.p_adjusted <= audit.alpha,
        ),
        paragraph(
            f"An ECE of sampled observations is above 0 even at correct propensities; {DRAWS} "
            "tables drawn from the given ones say by how much.",
            "note",
        ),
    ]


def _balance(audit: Findings) -> list[str]:
    if not len(audit.balance):
        return ["<h2>Balance</h2>", paragraph("No feature varies.")]
    figure = love_plot(audit.balance, alpha=audit.alpha, title="Balance of the features")
    rows = table(
        audit.balance,
        {
            "feature": ("feature", str),
            "before": ("unweighted", "+.3f"),
            "after": ("weighted", "+.3f"),
            "standard_error": ("null error", ".3f"),
            "z": ("z", _z),
            "p_adjusted": ("adjusted p", _p),
        },
        audit.balance.p_adjusted <= audit.alpha,
    )
    note = f" The {MOST} of largest |z| are drawn." if len(audit.balance) > MOST else ""
    return [
        "<h2>Balance</h2>",
        f'<div class="pictures">{picture(figure, "Love plot of the features")}</div>',
        f"<details><summary>All features as a table</summary>{rows}</details>",
        paragraph(
            "Correct propensities make weighted observed and unobserved pairs alike in every "
            "feature, up to chance (the band)." + note,
            "note",
        ),
    ]


def _weights(audit: Findings) -> list[str]:
    weights = audit.weights
    histogram = picture(_histogram(audit), "Histogram of the propensities")
    tail = ", ".join(
        f"{100 * float(name.removeprefix('quantile_')):g} % of the weights are at most {value:,.1f}"
        for name, value in weights.items()
        if name.startswith("quantile_")
    )
    return [
        "<h2>Weights</h2>",
        f'<div class="pictures">{histogram}</div>',
        paragraph(
            f"Of the weights 1 / propensity of the observed pairs, {tail}. The largest makes up "
            f"{weights['largest_share']:.1%} of their sum, the largest hundredth "
            f"{weights['top_1_percent_share']:.1%}. Their sum is {weights['sum_over_pairs']:.3f} "
            "of the number of pairs (about 1 if correct)."
        ),
        paragraph("What a clip would do:"),
        table(
            audit.clips,
            {
                "p_min": ("clip below", lambda x: f"{x:g}" if x else "none"),
                "observed_clipped": ("observed clipped", ".1%"),
                "all_clipped": ("all clipped", ".1%"),
                "effective_sample_size": ("effective sample size", ",.0f"),
                "max_weight": ("largest weight", ",.1f"),
                "mean_weight_change": ("mean weight", "+.1%"),
                "mass": ("pairs stood for", ".1%"),
            },
        ),
    ]


def _method(audit: Findings) -> list[str]:
    counts = audit.tests.kind.value_counts().to_dict()
    segments = counts.get("segment", 0) + counts.get("adversary", 0) + len(audit.adversary)
    sizes = {
        "segment": segments,
        "single": counts.get("single", 0),
        "calibration": len(audit.calibration),
        "balance": len(audit.balance),
    }
    spread = ", ".join(
        f"{n:,} of kind {k} at {audit.alpha * SHARES[k]:g}" for k, n in sizes.items()
    )
    return [
        "<h2>How this was tested</h2>",
        paragraph(
            f"The family-wise error rate of the whole page is {audit.alpha:g}: Holm's procedure "
            f"within each kind of test ({spread}). The null hypothesis: given the propensities, "
            "pairs are observed independently, each with its own. Propensities fitted on these "
            "very observations look better than they are."
        ),
        *(paragraph(note, "note") for note in audit.pairs.notes),
    ]


def _reliability(bins: Calibration) -> Figure:
    return reliability_diagram(
        bins.low,
        bins.high,
        bins.p_hat,
        bins.observed,
        bins.count,
        title=f"{_words(bins.rule)} bins".capitalize(),
        ece=bins.ece,
    )


def _histogram(audit: Findings) -> Figure:
    pairs = audit.pairs
    low = min(float(pairs.p.min()), 1.0 if audit.p_min is None else audit.p_min) / 1.05
    step = -np.log(low) / 40
    start = 0.0 if audit.p_min is None else np.log(audit.p_min) % step
    edges = np.exp(start + step * np.arange(-41 if start else -40, 1))  # alike; a clip is an edge
    edges = np.append(edges, np.exp(start + step)) if start else edges
    every = np.histogram(pairs.p, edges, weights=pairs.weight)[0]
    seen = np.histogram(pairs.p, edges, weights=pairs.weight * pairs.observed)[0]
    return propensity_histogram(
        every,
        seen,
        edges,
        clip=audit.p_min,
        effective_sample_size=audit.weights["effective_sample_size"],
        n_observed=audit.weights["observed"],
        title="Propensities",
    )


def _words(rule: str) -> str:
    return rule.replace("_", "-")


def _z(value: float) -> str:
    return signed(value, ".1f")


def _p(value: float) -> str:
    return p_text(value).removeprefix("= ")
