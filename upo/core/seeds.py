"""Seeds of a run: ``seeds=10`` or ``seeds=[0,3,7]``."""

from collections.abc import Sequence

from upo.errors import InputError


def parse_seeds(seeds: int | Sequence[int]) -> list[int]:
    """List of seeds, one for each replica.

    Raises:
        InputError: If there is none, one is negative or one is given twice.

    >>> parse_seeds(3)
    [0, 1, 2]
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int | Sequence) or isinstance(seeds, str):
        raise InputError(
            f"seeds must be a count or a list of integers, got {seeds!r}; try seeds=10."
        )
    listed = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    wrong = [s for s in listed if isinstance(s, bool) or not isinstance(s, int) or s < 0]
    if not listed or wrong:
        raise InputError(
            f"seeds must name at least one seed, each an integer of at least 0, got {seeds}; "
            "try seeds=10 or seeds=[0,3,7]."
        )
    if len(set(listed)) < len(listed):
        raise InputError(f"seeds names a seed twice: {listed}.")
    return listed
