"""The exceptions that end in a sentence, never in a traceback."""


class InputError(ValueError):
    """Wrong input: the message says what, where and how to fix it, in one sentence.

    The command line prints the message and exits with status 1; Python callers may catch it as a
    ``ValueError``.
    """


class UnfinishedError(RuntimeError):
    """A run that stopped before its end as it was asked to: the message says how to go on.

    The command line prints the message and exits with status 75, on which schedulers try again.
    """
