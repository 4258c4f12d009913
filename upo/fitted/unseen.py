"""How many of the ids that were asked for the model was fitted without."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor

from upo.errors import UnseenIdsWarning

MOST = 0.5  # a larger share of unseen rows is warned of


class Unseen(NamedTuple):
    """Rows that were asked for, and those of them with an id that has no place; counts add up."""

    rows: int
    users: int
    items: int
    either: int

    @classmethod
    def of(cls, users: Tensor, items: Tensor | None = None) -> Unseen:
        """Count places of -1.

        Args:
            users: ``[N]`` places of users.
            items: ``[N]`` places of items, where pairs were asked for.
        """
        new_users = users < 0
        new_items = new_users.new_zeros(()) if items is None else items < 0
        return cls(
            len(users),
            int(new_users.sum()),
            int(new_items.sum()),
            int((new_users | new_items).sum()),
        )

    def plus(self, other: Unseen) -> Unseen:
        """Both together."""
        return Unseen(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the rows with an unseen user, item, or either; 0 of no rows."""
        counts = {"unseen_users": self.users, "unseen_items": self.items, "unseen": self.either}
        return {name: count / max(1, self.rows) for name, count in counts.items()}

    def sentence(self, what: str) -> str:
        """What is to be said of it.

        Args:
            what: What was asked for, ``pairs`` or ``users``.
        """
        shares = self.shares
        kinds = [f"the user in {shares['unseen_users']:.1%}"] if self.users else []
        kinds += [f"the item in {shares['unseen_items']:.1%}"] if self.items else []
        apart = f" ({', '.join(kinds)})" if what == "pairs" else ""
        return (
            f"{self.either:,} of {self.rows:,} {what} ({shares['unseen']:.1%}) have an id that the "
            f"model was not fitted on{apart}: their answers are means over the log; compare how "
            "the ids are spelled with the training table."
        )

    def warn(self, what: str, stacklevel: int) -> None:
        """Warn if most rows have an unseen id."""
        if self.shares["unseen"] > MOST:
            warnings.warn(self.sentence(what), UnseenIdsWarning, stacklevel=stacklevel)
