"""How Python's cyclic garbage is collected in a process that serves for long."""

import gc

__all__ = ["collect_rarely"]

YOUNG, MIDDLE, OLD = 10_000, 20, 100
"""New objects until the youngest generation is looked at, and younger looks until an older one is."""


def collect_rarely() -> None:
    """Look at old objects hardly ever, and at those that there are now never.

    A step's new state takes the place of the last without a cycle. Python's own settings look at all
    live objects every few thousand steps all the same, which costs as much as the steps do. Called once
    when all code is loaded, by who owns the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
