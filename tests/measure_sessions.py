"""Memory of 30 visitors who each open all ten examples: `python tests/measure_sessions.py`.

Prints what the server's process takes at each visitor: the resident set, and the arrays of the sessions alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import explorer  # noqa: F401, I001  before torch
import psutil

from conftest import value_of
from explorer import pictures
from explorer.examples import begun, compute, examples, found
from explorer.visitors import Visitors

VISITORS = 30


def main() -> None:
    for example in examples():
        found(example) or value_of(compute(example))
    visitors, process = Visitors(), psutil.Process()
    before = process.memory_info().rss
    for n in range(1, VISITORS + 1):
        for example in examples():
            session = begun(example, example.k)
            pictures.views(pictures.layers(session), "slider", 0.6, True)
            pictures.table(session)
            visitors.put(f"visitor {n}", session)
        if n % 10 == 0:
            taken = (process.memory_info().rss - before) / 2**20
            print(f"{n} visitors: {taken:.0f} MiB of the process, {len(visitors)} results kept")


if __name__ == "__main__":
    main()
