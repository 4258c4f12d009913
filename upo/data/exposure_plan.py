"""What a simulated log is like."""

from dataclasses import dataclass

from upo.errors import InputError


@dataclass(frozen=True)
class WorldPlan:
    """What a simulated log is like.

    Attributes:
        n_users: At least 2.
        n_items: At least 2.
        density: |O| / |D|, in (0, 1), single ratings not counted.
        positive_log: Share of positive labels in the log, at least ``positive_all``.
        positive_all: Share of positive labels over all pairs, in (0, 1).
        ratings: The scale, ascending.
        threshold: Ratings of at least this are positive.
        user_sd: Standard deviation of the users' level, in units of the rating's logistic noise.
        item_sd: Of the items' quality.
        taste_sd: Of the taste term.
        dim: Rank of the taste term.
        activity_sd: Standard deviation of the logarithm of users' activity.
        popularity_sd: Standard deviation of the logarithm of items' popularity.
        slope_spread: Selection differs between items: gamma_i / gamma is uniform within 1 plus or
            minus this, in [0, 1]. At 0 selection shifts every label's logit alike, if labels are
            ratings, and misleads no ranking.
        single_share: Share of users with exactly one rating, in [0, 1).
    """

    n_users: int
    n_items: int
    density: float
    positive_log: float
    positive_all: float
    ratings: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    threshold: float = 4.0
    user_sd: float = 0.7
    item_sd: float = 1.0
    taste_sd: float = 1.2
    dim: int = 4
    activity_sd: float = 0.7
    popularity_sd: float = 0.7
    slope_spread: float = 0.5
    single_share: float = 0.0

    def __post_init__(self) -> None:
        positive = sum(rating >= self.threshold for rating in self.ratings)
        if not 0 < positive < len(self.ratings):
            raise InputError(
                f"The threshold {self.threshold:g} leaves one class of the ratings "
                f"{self.ratings[0]:g}..{self.ratings[-1]:g}; choose one between them."
            )
        if not 0 < self.positive_all <= self.positive_log < 1:
            raise InputError(
                f"A log of self-selected ratings has at least the share of positives of all pairs, "
                f"got {self.positive_log:g} and {self.positive_all:g}; both lie in (0, 1)."
            )
        if not 0 < self.density < 1 or not 0 <= self.single_share < 1:
            raise InputError(
                f"density lies in (0, 1) and single_share in [0, 1), got {self.density:g} and "
                f"{self.single_share:g}."
            )
