"""What every benchmark of this folder shares: its options, its clock, its table and its last line."""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TypeVar

Subject = TypeVar("Subject")

NO_LIMITS: Mapping[str, float] = {}

SHORTEST_S = 0.02
"""Seconds that one measurement lasts at least: a faster function is called several times in it."""


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="a rough answer in under a minute")
    made.add_argument("--json", action="store_true", help="end with one line of JSON")
    return made


def medians_s(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of a call of each function, by the clock on the wall.

    They are measured in turn, so that what else the machine does falls on all of them.

    Args:
        functions: What is measured. Each is called once before the clock starts.
        repeats: How many measurements a median is taken of.
    """
    once = [_seconds(function, 1) for function in functions]
    calls = [max(1, round(SHORTEST_S / max(seconds, 1e-9))) for seconds in once]
    found: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for times, function, number in zip(found, functions, calls, strict=True):
            times.append(_seconds(function, number) / number)
    return [median(times) for times in found]


def median_first_s(
    make: Callable[[], Subject], function: Callable[[Subject], object], repeats: int
) -> float:
    """Return the median seconds of the first call on something new; making it is not counted."""
    return median(_seconds(partial(function, make()), 1) for _ in range(repeats))


def _seconds(function: Callable[[], object], calls: int) -> float:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would fall on whoever happens to be measured
    try:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return time.perf_counter() - start
    finally:
        if was_enabled:
            gc.enable()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of aligned columns: the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def missed(
    figures: Mapping[str, float],
    targets: Mapping[str, float],
    limits: Mapping[str, float] = NO_LIMITS,
) -> list[str]:
    """Return the names of the figures that miss what they should reach.

    Args:
        targets: Figures are at least that.
        limits: Figures are at most that.
    """
    too_low = {name for name, bound in targets.items() if figures[name] < bound}
    too_high = {name for name, bound in limits.items() if figures[name] > bound}
    return sorted(too_low | too_high)


def json_line(
    figures: Mapping[str, float],
    targets: Mapping[str, float],
    limits: Mapping[str, float] = NO_LIMITS,
) -> str:
    """Return the figures, their targets and the names of those missed, as one line of JSON.

    The limits are in it where there are any.
    """
    found: dict[str, object] = {"figures": figures, "targets": targets}
    if limits:
        found["limits"] = limits
    found["missed"] = missed(figures, targets, limits)
    return json.dumps(found, allow_nan=False)


def say(text: str = "") -> None:
    """Write a line at once, so that a long benchmark shows how far it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
