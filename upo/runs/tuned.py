"""Files of tuned values: where they lie, and which log they belong to.

Those of a dataset with a name serve all its runs that have the same target. Those of a table belong
to the log that they were found on, and lie under a digest of it: a fit of another log does not take
them up.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from upo.core.digest import tensor_digest
from upo.core.dotted import dotted
from upo.core.files import write_atomically
from upo.data.rating_data import RatingData
from upo.runs.compose import composed, conf_dir, user_dir
from upo.runs.config import target_name

GROUP = "tuned@_global_"
BUDGET = "budget"  # key of what the search cost
NOT_TUNED = f"~{GROUP}"  # the word that leaves tuned values out


def fingerprint(data: RatingData) -> str:
    """A digest of a log: its users and items, its pairs in order, and their ratings."""
    train = data.train
    return tensor_digest((train.n_users, train.n_items), train.keys, train.ratings)


def is_table(config: DictConfig) -> bool:
    """Whether the dataset is a person's own table, of which the name says nothing."""
    return "user_column" in config.dataset


def place(config: DictConfig, log: str) -> Path:
    """Where the tuned values of a configuration lie below ``tuned/``.

    Args:
        config: Composed configuration.
        log: Digest of the log.
    """
    dataset = f"table_{log[:16]}" if is_table(config) else str(config.dataset.name)
    parts = str(config.protocol.name), dataset, str(config.estimator.backbone)
    target = target_name(config.estimator)
    of = "" if target == "positive" else f"_{target}"
    return Path(*parts, f"{config.estimator.name}{of}.yaml")


def write(
    path: Path,
    values: Mapping[str, Any],
    notes: Sequence[str],
    data: RatingData,
    budget: Mapping[str, Any],
) -> None:
    """Write values as a configuration, with what they rest on above it.

    Args:
        path: The file.
        values: By dotted key.
        notes: Sentences.
        data: The log that they were found on.
        budget: Trials of the search, seeds of each, and its notes.
    """
    tree: Any = OmegaConf.create({BUDGET: dict(budget)})
    for key, value in values.items():
        OmegaConf.update(tree, key, value)
    train = data.train
    size = f"{len(train):,} ratings, {train.n_users:,} users x {train.n_items:,} items"
    lines = "".join(f"# {line}\n" for line in [*notes, f"Log {fingerprint(data)}: {size}."])
    write_atomically(path, f"# @package _global_\n{lines}{OmegaConf.to_yaml(tree)}")


def words_for(config: DictConfig, data: RatingData) -> tuple[list[str], str | None]:
    """For a run on a table, the words that take up the values tuned on its log, and no others.

    Args:
        config: Its configuration.
        data: Its log.

    Returns:
        Overrides, and a sentence where there are values of other logs alone.
    """
    mine = _word(place(config, fingerprint(data)))
    if mine is not None:
        return [mine], None
    others = of_other_logs(config)
    if not others:
        return [NOT_TUNED], None
    said = (
        f"{others[0]} was tuned on another log, so its values are not taken; tune this one, or "
        "give them as overrides."
    )
    return [NOT_TUNED], said


def of_target(words: Sequence[str]) -> list[str]:
    """Words that take up values of the target that is asked for, not those of ``positive``.

    Args:
        words: Those of a run on a dataset with a name; none are needed where one names such a file.
    """
    asked = [word for word in words if word.startswith("target=")]
    if asked in ([], ["target=positive"]) or any(GROUP in word for word in words):
        return []
    return [_word(place(composed([*words, NOT_TUNED]), "")) or NOT_TUNED]


def _word(path: Path) -> str | None:
    """The word that takes up a file below ``tuned/``, if there is one."""
    if any((root / "tuned" / path).is_file() for root in (user_dir(), conf_dir())):
        return f"{GROUP}={path.with_suffix('').as_posix()}"
    return None


def of_other_logs(config: DictConfig) -> Sequence[Path]:
    """Files of values that were tuned on tables with this estimator, backbone and protocol."""
    protocol, _, *rest = place(config, "").parts
    pattern = str(Path("tuned", protocol, "table*", *rest))
    return [path for root in (user_dir(), conf_dir()) for path in sorted(root.glob(pattern))]


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of the file that such words take up."""
    for word in words:
        name = word.removeprefix(f"{GROUP}=")
        for root in (user_dir(), conf_dir()) if name != word else ():
            path = root / "tuned" / f"{name}.yaml"
            if path.is_file():
                tree: Any = OmegaConf.to_container(OmegaConf.load(path))
                tree.pop(BUDGET, None)
            return dict(dotted(tree))
    return {}
