"""What a search looks through: ranges of values that an estimator reads, and shapes of rounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.distributions import FloatDistribution

from upo.errors import InputError
from upo.runs.config import scheduled

EDGE = 0.05  # of a range, on its own scale: what lies nearer to an end lies at it
WIDER = 4.0  # an end on a log scale moves by this factor, once
NONE = 3.0  # below `low` of kind log0, down to low / 3, a value is 0
KINDS = ("log", "log0", "linear")


@dataclass(frozen=True)
class Range:
    """Where a value is looked for.

    Attributes:
        low: Lower end.
        high: Upper end, above it.
        kind: ``log``, ``linear``, or ``log0``: logarithmic, with 0 below the lower end.
        limits: What values may not pass, however the range is widened.
    """

    low: float
    high: float
    kind: str
    limits: tuple[float, float] = (-math.inf, math.inf)

    @property
    def _start(self) -> float:
        return self.low / NONE if self.kind == "log0" else self.low

    def distribution(self) -> FloatDistribution:
        """As Optuna draws from it."""
        return FloatDistribution(self._start, self.high, log=self.kind != "linear")

    def value(self, drawn: float) -> float:
        """The value that a trial has: four digits, so that files hold what was tried."""
        return 0.0 if self.kind == "log0" and drawn < self.low else float(f"{drawn:.4g}")

    def edge(self, drawn: float) -> str | None:
        """``low`` or ``high`` if a draw lies at that end; 0 is no edge.

        >>> [Range(0.01, 1.0, "log").edge(x) for x in (0.0101, 0.1, 0.99)]
        ['low', None, 'high']
        """
        ends = (self._start, drawn, self.high)
        a, x, b = ends if self.kind == "linear" else map(math.log, ends)
        place = (x - a) / (b - a)
        if place > 1 - EDGE:
            return "high"
        return "low" if place < EDGE and self.kind != "log0" else None

    def widened(self, end: str) -> "Range":
        """The range with one end moved, as far as the limits allow."""
        step = (self.high - self.low) / 2
        if end == "high":
            high = self.high + step if self.kind == "linear" else self.high * WIDER
            return replace(self, high=min(high, self.limits[1]))
        low = self.low - step if self.kind == "linear" else self.low / WIDER
        return replace(self, low=max(low, self.limits[0]))


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        ranges: Dotted key -> range, of values that each trial has of its own.
        structure: Dotted key -> choices, of values that all trials of a round share.
        left_out: Keys of the search that this estimator does not have, or that are given.
    """

    ranges: dict[str, Range]
    structure: dict[str, list[Any]]
    left_out: list[str] = field(default_factory=list)


def space_of(base: DictConfig, search: DictConfig, given: Sequence[str]) -> Space:
    """The part of a search that an estimator has.

    Args:
        base: Composed configuration.
        search: ``space``, ``structure`` and ``limits`` of a file of ``conf/search``; a part's own,
            under ``estimator.search``, is added to it.
        given: Dotted keys that are set, and so not searched.

    Raises:
        InputError: If nothing is left, or a range is none.
    """
    own = base.estimator.get("search")
    if own is not None:
        merged = OmegaConf.merge(OmegaConf.to_container(search), own)  # not closed to new keys
        assert isinstance(merged, DictConfig)  # mappings, both
        search = merged
    limits, keys = search.get("limits") or {}, _Keys(base)
    ranges, structure, left_out = {}, {}, []
    for key, entry in (search.get("space") or {}).items():
        if key not in given and str(key) in keys:
            ranges[str(key)] = _range(str(key), entry, limits.get(key))
        else:
            left_out.append(str(key))
    for key, choices in (search.get("structure") or {}).items():
        if key not in given and str(key) in keys:
            structure[str(key)] = list(choices)
        else:
            left_out.append(str(key))
    if not ranges:
        raise InputError("Nothing is left to search: every key of the search is overridden.")
    return Space(ranges, structure, left_out)


class _Keys:
    """Which keys are numbers that an estimator reads, and reads nowhere else.

    Args:
        config: Composed configuration; it is copied.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config.copy()
        self.players = _players(self.config)

    def __contains__(self, key: str) -> bool:
        """One within a reference is searched where that leads; one that moves nothing, nowhere."""
        *above, last = key.split(".")
        node: Any = self.config
        for part in above:
            if not isinstance(node, DictConfig) or part not in node:
                return False
            if OmegaConf.is_interpolation(node, part):
                return False
            node = node[part]
        value = OmegaConf.select(self.config, key)
        if value == "auto":  # a number by a rule
            value = 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        before = OmegaConf.to_container(node)
        assert isinstance(before, dict)
        node[last] = value + 1
        moved = _players(self.config) != self.players
        node[last] = before[last]
        return moved


def _players(config: DictConfig) -> list[Any]:
    """What an estimator consists of: its networks, its parts, and the learners that play."""
    estimator = config.estimator
    names = {name for stage in scheduled(estimator) for name in _named(estimator.stages[stage])}
    learners = [estimator.learners[name] for name in sorted(names) if name in estimator.learners]
    parts = [estimator.get(part) for part in ("networks", "weighting", "form", "bins")]
    nodes = [node for node in [*parts, *learners] if node is not None]
    return [OmegaConf.to_container(node, resolve=True) for node in nodes]


def _named(stage: DictConfig) -> list[str]:
    return [*(stage.get("first") or []), *(stage.get("learners") or [])]


def _range(key: str, entry: Any, limits: Any) -> Range:
    try:
        low, high, kind = entry
        least, most = limits or (-math.inf, math.inf)
        found = Range(float(low), float(high), str(kind), (float(least), float(most)))
        if kind not in KINDS or not low < high or (kind != "linear" and not low > 0):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InputError(
            f"space of the search: {key} must be [low, high, kind] with low < high and a kind of "
            f"{', '.join(KINDS)} (low > 0 but for linear), got {entry}."
        ) from error
    return found
