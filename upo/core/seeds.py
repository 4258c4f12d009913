"""Seeds of a run: ``seeds=10`` or ``seeds=[0,3,7]``."""

from collections.abc import Sequence

from upo.errors import InputError

MOST = 10_000  # of one run; each holds a copy of every network


def parse_seeds(seeds: int | Sequence[int]) -> list[int]:
    """List of seeds, one for each replica.

    Raises:
        InputError: If there is none, one is negative or one is given twice.

    >>> parse_seeds(3)
    [0, 1, 2]
    """
    if hasattr(seeds, "tolist"):  # numpy's numbers and arrays
        seeds = seeds.tolist()
    if isinstance(seeds, bool) or not isinstance(seeds, int | Sequence) or isinstance(seeds, str):
        raise InputError(
            f"seeds must be a count or a list of integers, got {seeds!r}; try seeds=10."
        )
    count = seeds if isinstance(seeds, int) else len(seeds)
    if count > MOST:
        raise InputError(
            f"{count:,} seeds are more than the {MOST:,} that one run holds; give fewer, or run "
            "several times."
        )
    listed = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    listed = [s.item() if hasattr(s, "item") else s for s in listed]
    wrong = [s for s in listed if type(s) is not int or not 0 <= s < 2**63]
    if not listed or wrong:
        raise InputError(
            f"seeds must name at least one seed, each an integer of at least 0 and below 2**63, "
            f"got {seeds}; try seeds=10 or seeds=[0,3,7]."
        )
    if len(set(listed)) < len(listed):
        raise InputError(f"seeds names a seed twice: {listed}.")
    return listed
