"""An expert that knows which papers are wanted and fetches them with real calls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from steppo_env.mdp import Action
from steppo_env.parsing import parse_text
from steppo_paper_search.episode import CallKind, Episode
from steppo_paper_search.library import View
from steppo_paper_search.prompts import MAX_CALLS, MAX_QUERY_CHARS

__all__ = ["PlannedCall", "expert_action", "plan_calls", "steps_to_go"]

ABSTRACT_WORDS = (0, 12, 40, 200)
"""How much of a paper's abstract is added to its title until a search finds the paper."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call and the wanted papers that it will newly list."""

    kind: CallKind
    argument: str
    found: tuple[int, ...]
    gain: int


def expert_action(view: View, episode: Episode, gold: Sequence[int]) -> Action:
    """Return the expert's next response: up to five calls, or the answer when all is found."""
    calls = plan_calls(view, episode, gold)[:MAX_CALLS]
    if calls:
        return parse_text("\n".join([_thought(view, calls), *map(_call, calls)]))
    listed = set(episode.listed)
    found = view.ids(view.ranked(place for place in gold if place in listed))
    answer = ", ".join(found) or "done"
    thought = "<think>The list now covers the request, so I name the papers that answer it.</think>"
    return parse_text(f"{thought}\n<answer>{answer}</answer>")


def steps_to_go(view: View, episode: Episode, gold: Sequence[int]) -> int:
    """Return how many steps the expert will still take, the one that stops included."""
    if episode.answer is not None:
        return 0
    return -(-len(plan_calls(view, episode, gold)) // MAX_CALLS) + 1


def plan_calls(view: View, episode: Episode, gold: Sequence[int]) -> list[PlannedCall]:
    """Return the calls that list all wanted papers, the one with the largest gain first each time.

    Every choice depends only on what is listed, expanded and missing at its point (a search aims at
    a paper that is missing still, even where the one for a paper found by now would do more). So the plan made
    after executing its beginning is its rest, and its length is exact.
    """
    listed = set(episode.listed)
    places = map(view.library.graph.place, episode.expanded)
    expanded = {place for place in places if place is not None}
    missing = [place for place in gold if place not in listed]
    searches = {place: _search_for(view, place) for place in missing}
    plan: list[PlannedCall] = []
    while missing:
        calls = [
            *_searches([searches[place] for place in missing], missing),
            *_expansions(view, missing, listed - expanded),
        ]
        if not calls:
            break
        best = max(calls, key=_preference)
        plan.append(best)
        listed.update(best.found)
        if best.kind == "expand":
            place = view.library.graph.place(best.argument)
            expanded.update(() if place is None else (place,))
        missing = [place for place in missing if place not in listed]
    return plan


def _preference(call: PlannedCall) -> tuple[int, bool]:
    # An expansion is worth its many results only when several of them are wanted. Among equals,
    # max() takes the first, and the calls come in the order of papers.
    return call.gain, (call.kind == "expand") == (call.gain > 1)


def _searches(searches: Sequence[PlannedCall | None], missing: Sequence[int]) -> list[PlannedCall]:
    wanted = set(missing)
    counted = [
        PlannedCall(call.kind, call.argument, call.found, len(wanted.intersection(call.found)))
        for call in searches
        if call is not None
    ]
    return [call for call in counted if call.gain]


def _search_for(view: View, place: int) -> PlannedCall | None:
    """Return a search that finds a paper, by its title and as much of its abstract as it takes."""
    paper = view.papers[place]
    for num_words in ABSTRACT_WORDS:
        words = (paper.abstract or "").split()[:num_words]
        query = " ".join([paper.title, *words])[:MAX_QUERY_CHARS]
        found = view.search(query)
        if place in found:
            return PlannedCall("search", query, found, 1)
    return None


def _expansions(view: View, missing: list[int], candidates: set[int]) -> list[PlannedCall]:
    graph = view.library.graph
    near = {
        other
        for place in missing
        for other in (*graph.references(place), *graph.citations(place))
        if other in candidates
    }
    wanted = set(missing)
    calls = []
    for place in sorted(near):
        neighbours = view.expand(place)
        found = tuple(dict.fromkeys((*neighbours.references, *neighbours.citations)))
        gain = len(wanted.intersection(found))
        if gain:
            calls.append(PlannedCall("expand", view.papers[place].paper_id, found, gain))
    return calls


def _call(call: PlannedCall) -> str:
    name = "query" if call.kind == "search" else "paper_id"
    document = {"name": call.kind, "arguments": {name: call.argument}}
    return f"<tool_call>{json.dumps(document, ensure_ascii=False)}</tool_call>"


def _thought(view: View, calls: Sequence[PlannedCall]) -> str:
    opened = [call.argument for call in calls if call.kind == "expand"]
    num_searches = len(calls) - len(opened)
    parts = []
    if opened:
        parts.append(
            f"{', '.join(opened)} should lead to more of what is wanted, so I follow its citations."
        )
    if num_searches:
        parts.append(
            "Papers are still missing; I search for them in words they may use themselves."
        )
    return f"<think>{' '.join(parts)}</think>"
