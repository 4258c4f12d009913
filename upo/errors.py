"""The one exception for what a person can mend: shown as a sentence, never as a traceback."""


class InputError(ValueError):
    """Wrong input: the message says what, where and how to mend it, in one sentence.

    The command line prints the message and exits with status 1; Python callers may catch it as a
    ``ValueError``.
    """
