"""What a person is told: exceptions that end in a sentence, never in a traceback, and warnings."""

LONGEST = 600
"""Characters of a sentence; one that names a longer text leaves out its middle."""


class InputError(ValueError):
    """Wrong input: the message says what, where and how to fix it, in one sentence.

    The command line prints the message and exits with status 1; Python callers may catch it as a
    ``ValueError``. Characters that a terminal would obey, or that turn the order of others round,
    are shown as escapes, whatever file they come from.
    """

    def __init__(self, sentence: object = "") -> None:
        super().__init__(visible(" ".join(str(sentence).split("\n")), LONGEST))


def visible(text: str, most: int) -> str:
    r"""Text without characters that nobody sees, and no longer than ``most``.

    >>> visible("a\x1b[31m\u202eb", 20), visible("abcdefghij", 7)
    ('a\\x1b[31m\\u202eb', 'abcd...')
    >>> len(visible("x" * 1000, 100))
    100
    """
    if len(text) > 4 * most:  # escapes only lengthen; a huge text is not walked through
        text = text[: 2 * most] + "..." + text[-2 * most :]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    if len(shown) <= most:
        return shown
    end = most // 3 if most >= 60 else 0
    return shown[: most - 3 - end] + "..." + (shown[-end:] if end else "")


class UnfinishedError(RuntimeError):
    """A run that stopped before its end as it was asked to: the message says how to go on.

    The command line prints the message and exits with status 75, on which schedulers try again.
    """


class FailedSeedsWarning(UserWarning):
    """Replicas of some seeds diverged: the model consists of the others."""


class RareLabelsWarning(UserWarning):
    """Nearly all ratings of the log are positive, or nearly none."""


class UselessModelWarning(UserWarning):
    """The model predicts no better than a constant, by two standard errors on validation rows."""


class UselessWeightsWarning(UserWarning):
    """Most inverse propensities of the log are one and the same: nothing is corrected."""


class UnseenIdsWarning(UserWarning):
    """Most of what was asked for has an id that the model was not fitted on."""


class DoubtfulEstimateWarning(UserWarning):
    """An estimate from a log is not to be trusted: its weights do not fit D, or one decides."""
