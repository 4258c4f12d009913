"""What a metric accepts: rules on values, checked together so that the device is waited for once.

Values are never guessed: a probability outside [0, 1] is an error, not a logit.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """Which values are fine, and how to say so."""

    fine: Callable[[Tensor], Tensor]
    says: str


# comparisons with NaN are false, so every rule refuses NaN
PROBABILITY = Rule(lambda x: (x >= 0) & (x <= 1), "must lie in [0, 1] (probabilities, not logits)")
DIVISOR = Rule(lambda x: (x > 0) & (x <= 1), "must lie in (0, 1]; clip it from below")
BINARY = Rule(lambda x: (x == 0) | (x == 1), "must be 0 or 1")
FINITE = Rule(torch.isfinite, "must be finite")
NOT_NAN = Rule(lambda x: ~torch.isnan(x), "must not be NaN")
WEIGHT = Rule(lambda x: torch.isfinite(x) & (x >= 0), "must be finite and at least 0")


def check(owner: str, inputs: dict[str, tuple[Tensor, Rule]]) -> None:
    """Raise ValueError for the first input with a value that its rule refuses."""
    fine = torch.stack([rule.fine(x).all() for x, rule in inputs.values()])
    for (name, (x, rule)), is_fine in zip(inputs.items(), fine.tolist(), strict=True):
        if not is_fine:
            bad = x[~rule.fine(x)]
            raise ValueError(
                f"{owner}: {name} {rule.says}, got {bad[0].item()} "
                f"({bad.numel()} of {x.numel()} values are wrong)."
            )
