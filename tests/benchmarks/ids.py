"""What numbering a column of ids costs: whole numbers with and without a dictionary.

python tests/benchmarks/ids.py [MILLIONS_OF_ROWS=5] [MILLIONS_OF_IDS=1]
"""

import sys
import time

import numpy as np
import pyarrow as pa

from upo.tables import numbering

ROWS_AT_ONCE = 2**17  # as Parquet is read


def seconds(column, few):
    """CPU time, and the ids and rows that came of it."""
    numbering.FEW = few
    start = time.process_time()
    numbered = numbering.Numbering(parse=True)
    for low in range(0, len(column), ROWS_AT_ONCE):
        numbered.add(pa.array(column[low : low + ROWS_AT_ONCE]))
    (index,), ids = numbering.join_ids([numbered.result()])
    return time.process_time() - start, index, ids


def main():
    """Print one table."""
    rows, count = (int(float(word) * 1e6) for word in (*sys.argv[1:], "5", "1")[:2])
    draw = np.random.default_rng(0)
    few = numbering.FEW
    columns = {
        f"{count:,} dense ids": draw.integers(0, count, rows),
        "from 10^12 on": draw.integers(0, count, rows) + 10**12,
        "a tenth of a range": draw.integers(0, count, rows) * 10,
        "too far apart": draw.integers(0, count, rows) * 10**9,
    }
    sys.stdout.write(f"{rows:,} rows\n")
    for name, column in columns.items():
        plain, index, ids = seconds(column, 2**62)
        dense, same, theirs = seconds(column, few)
        assert index.equal(same)
        assert np.array_equal(ids, theirs)
        sys.stdout.write(f"{name:24} dictionary {plain:6.2f} s, now {dense:6.2f} s\n")


if __name__ == "__main__":
    main()
