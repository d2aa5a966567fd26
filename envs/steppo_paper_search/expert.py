"""An expert that knows which papers are wanted and fetches them with real calls."""

import json
from collections.abc import Sequence

from steppo_env.mdp import Action
from steppo_env.parsing import parse_text
from steppo_paper_search.episode import Episode
from steppo_paper_search.library import MAX_CALLS, Plan, PlannedCall, View

__all__ = ["expert_action", "steps_to_go"]


def expert_action(view: View, episode: Episode, gold: Sequence[str]) -> Action:
    """Return the expert's next response: up to five calls, or the answer when no call is left."""
    calls = _plan(view, episode, gold).calls[:MAX_CALLS]
    if calls:
        return parse_text("\n".join([_thought(calls), *map(_written, calls)]))
    listed = set(episode.listed)
    found = view.ranked(paper_id for paper_id in gold if paper_id in listed)
    answer = ", ".join(found) or "done"
    thought = "<think>The list now covers the request, so I name the papers that answer it.</think>"
    return parse_text(f"{thought}\n<answer>{answer}</answer>")


def steps_to_go(view: View, episode: Episode, gold: Sequence[str]) -> int | None:
    """Return how many steps the expert will still take, the one that stops included.

    None where the plan is not exact: what a service will bring nobody knows.
    """
    if episode.answer is not None:
        return 0
    plan = _plan(view, episode, gold)
    return -(-len(plan.calls) // MAX_CALLS) + 1 if plan.is_exact else None


def _plan(view: View, episode: Episode, gold: Sequence[str]) -> Plan:
    return view.plan(episode.listed, episode.expanded, episode.queries, gold)


def _written(call: PlannedCall) -> str:
    name = "query" if call.kind == "search" else "paper_id"
    document = {"name": call.kind, "arguments": {name: call.argument}}
    return f"<tool_call>{json.dumps(document, ensure_ascii=False)}</tool_call>"


def _thought(calls: Sequence[PlannedCall]) -> str:
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
