"""How slow the machine of a test is, so that a bound on time means the same on each.

A bound is there to tell a text that takes hours from one that takes a moment. On a shared machine the same work takes
several times as long as on a quiet one, and a bound in plain seconds would fail there.
"""

import time

REFERENCE = 0.021  # seconds of the processor, for the loop below, where the bounds of the tests were chosen


def slowness() -> float:
    """How many times longer than there this machine works now; at least 1."""
    began = time.process_time()
    sum(i * i for i in range(500_000))
    return max(1.0, (time.process_time() - began) / REFERENCE)
