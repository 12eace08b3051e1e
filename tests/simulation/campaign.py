"""python -m tests.simulation.campaign FIRST COUNT: random schedules, and a summary of what they find."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

import structlog

from tests.simulation.schedules import run_seed
from tests.simulation.world import Violation

if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    first, count = int(sys.argv[1]), int(sys.argv[2])
    kinds: Counter[str] = Counter()
    begin = time.perf_counter()
    for seed in range(first, first + count):
        try:
            run_seed(seed)
        except Violation as error:
            kind = str(error).split("\n", 1)[0]
            kinds[kind.split(":")[0]] += 1
            print(seed, kind)  # noqa: T201
            if count == 1:
                print(error)  # noqa: T201
    print(f"{count / (time.perf_counter() - begin):.0f} schedules a second", dict(kinds))  # noqa: T201
