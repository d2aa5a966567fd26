"""Names for things whose identifiers are places: `cabinet_bar__minus_01_dot_5...` is `cabinet 1`."""

from collections import Counter
from collections.abc import Iterable

__all__ = ["spoken_names"]

_MARK = "_bar_"
"""Stands between the kind of a thing and its coordinates."""


def spoken_names(identifiers: Iterable[str]) -> dict[str, str]:
    """Return a name for each identifier: its kind and a number.

    As in ALFWorld, things of a kind are numbered from the last identifier in alphabetical order to
    the first, so that its walkthroughs mean the same things here. What has no place keeps its name.

    >>> spoken_names(["cup_bar_1", "cup_bar_2", "sink_bar_1_bar_sinkbasin", "agent1"])
    {'agent1': 'agent1', 'cup_bar_1': 'cup 2', 'cup_bar_2': 'cup 1',
     'sink_bar_1_bar_sinkbasin': 'sinkbasin 1'}
    """
    ordered = sorted(set(identifiers))
    left = Counter(_kind(identifier) for identifier in ordered if _MARK in identifier)
    names: dict[str, str] = {}
    for identifier in ordered:
        if _MARK not in identifier:
            names[identifier] = identifier
            continue
        kind = _kind(identifier)
        names[identifier] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind(identifier: str) -> str:
    """Return the kind of a thing; the basin of a sink is not the sink."""
    kind = identifier.split(_MARK, 1)[0]
    return f"{kind}basin" if "basin" in identifier else kind
