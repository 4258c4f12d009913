"""What predictions are of, and how the output of a network becomes one.

Networks learn labels as a pair space holds them: 0 and 1 for ``positive``, standardised ratings for
``rating``, so that rates and penalties mean the same on a scale of 1..5 and of 0..100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from upo.data.interactions import LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy

TARGETS = ("positive", "rating")
LEAST_RATE = 1e-4  # a share of positive labels is read inside [this, 1 - this]
_OF_LABELS = LabelRule(1.0)
_LEAST_SPREAD = 1e-12  # of ratings, as a share of the largest


class Target(Protocol):
    """What predictions are of; every function is elementwise, of any shape."""

    name: ClassVar[str]

    @property
    def unit(self) -> float:
        """What a step of 1 in labels is in predictions."""

    def prediction(self, output: Tensor) -> Tensor:
        """The prediction that a network's output stands for."""

    def score(self, output: Tensor) -> Tensor:
        """What pairs are ranked by: the prediction, before it is clipped."""

    def share(self, output: Tensor) -> Tensor:
        """The prediction as a part of its scale, in [0, 1]."""

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Pointwise loss of an output whose least mean is at the mean label; at least 0."""

    def output(self, label: Tensor) -> Tensor:
        """The output that predicts a mean label."""

    def decoded(self, label: Tensor) -> Tensor:
        """Labels in the unit of predictions."""

    def labels(self, ratings: Tensor) -> Tensor:
        """Ratings as labels, float32."""

    def truth(self, ratings: Tensor) -> Tensor:
        """Ratings as predictions should be."""


@dataclass(frozen=True)
class Positive:
    """P(positive rating): labels are 0 and 1, outputs are logits.

    Attributes:
        rule: Which ratings are positive; where ratings are 0 and 1, those of 1.
    """

    rule: LabelRule = _OF_LABELS
    name: ClassVar[str] = "positive"
    unit: ClassVar[float] = 1.0

    def prediction(self, output: Tensor) -> Tensor:
        """The probability."""
        return torch.sigmoid(output)

    def score(self, output: Tensor) -> Tensor:
        """The probability."""
        return torch.sigmoid(output)

    def share(self, output: Tensor) -> Tensor:
        """The probability."""
        return torch.sigmoid(output)

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy."""
        return cross_entropy(output, label)

    def output(self, label: Tensor) -> Tensor:
        """The logit of a share, of which 0 or 1 is read as 1e-4 from there."""
        return torch.logit(label.clamp(LEAST_RATE, 1 - LEAST_RATE))

    def decoded(self, label: Tensor) -> Tensor:
        """The labels."""
        return label

    def labels(self, ratings: Tensor) -> Tensor:
        """Whether they are positive, 0 or 1."""
        return self.rule(ratings)

    def truth(self, ratings: Tensor) -> Tensor:
        """Whether they are positive, 0 or 1."""
        return self.rule(ratings)


@dataclass(frozen=True)
class Rating:
    """The rating: labels are ratings less ``centre`` over ``spread``, as outputs are.

    Attributes:
        low: Least rating of the log; predictions are clipped to ``low .. high``.
        high: Largest rating.
        centre: Mean rating of the log.
        spread: Standard deviation of the ratings, above 0.
    """

    low: float
    high: float
    centre: float
    spread: float
    name: ClassVar[str] = "rating"

    @classmethod
    def of(cls, ratings: Tensor) -> Rating:  # [N]
        """The scale of a log.

        Raises:
            InputError: If every rating is the same.
        """
        values = ratings.double()
        low, high = (float(x) for x in torch.aminmax(values))
        spread = float(values.std(correction=0))
        if not spread > _LEAST_SPREAD * max(abs(low), abs(high)):
            raise InputError(
                f"Every rating of the log is {low:g}, so target=rating has nothing to learn; give "
                "ratings that differ, or use target=observed."
            )
        return cls(low, high, float(values.mean()), spread)

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """What the scale is made of, to be written down."""
        return self.low, self.high, self.centre, self.spread

    @property
    def unit(self) -> float:
        """The spread."""
        return self.spread

    def labels(self, ratings: Tensor) -> Tensor:
        """Standardised ratings, float32."""
        return ((ratings.double() - self.centre) / self.spread).float()

    def truth(self, ratings: Tensor) -> Tensor:
        """The ratings."""
        return ratings

    def prediction(self, output: Tensor) -> Tensor:
        """The rating, clipped to the scale of the log."""
        return self.decoded(output).clamp(self.low, self.high)

    def score(self, output: Tensor) -> Tensor:
        """The rating, not clipped: clipped ones would be ties."""
        return self.decoded(output)

    def share(self, output: Tensor) -> Tensor:
        """Where the clipped rating lies between the ends of the scale."""
        return (self.prediction(output) - self.low) / (self.high - self.low)

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Squared error."""
        return (output - label) ** 2

    def output(self, label: Tensor) -> Tensor:
        """The label."""
        return label

    def decoded(self, label: Tensor) -> Tensor:
        """Ratings of labels or outputs."""
        return self.centre + self.spread * label


POSITIVE = Positive()


def target_of(name: str, data: RatingData) -> Positive | Rating:
    """What is predicted of a dataset.

    Raises:
        InputError: If there is no such target, or the log has no scale.
    """
    if name not in TARGETS:
        raise InputError(f"estimator.target must be one of {', '.join(TARGETS)}, got {name!r}.")
    if name == Positive.name:
        return Positive(data.label_rule)
    return Rating.of(data.train.ratings)
