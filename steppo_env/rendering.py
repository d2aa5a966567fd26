"""How a state becomes messages: rebuilt from sections within a budget, or accumulated."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pydantic import JsonValue

from steppo_env.mdp import Action, Message, ToolCall

__all__ = ["Rendering", "Section", "Shrink", "Transcript", "render_sections"]

_GAP = "\n\n"


class Rendering(StrEnum):
    """How the messages of a state are made."""

    REBUILT = "rebuilt"
    """Each state is a fresh system and user message made from environment state (the paper's)."""
    ACCUMULATED = "accumulated"
    """Messages are only ever appended, so that a prompt extends the previous one."""


class Shrink(StrEnum):
    """Which items of a section go first when the state is over its budget."""

    NEVER = "never"
    """None: instructions, the task, the latest feedback."""
    OLDEST = "oldest"
    """Items are in order of time; the first ones go first."""
    LOWEST = "lowest"
    """Items are in order of rank; the last ones go first."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the state. One without any text in its items is not rendered."""

    heading: str
    items: tuple[str, ...]
    shrink: Shrink = Shrink.NEVER


def render_sections(sections: Sequence[Section], budget_chars: int) -> str:
    """Join sections into one text of at most `budget_chars` characters.

    Sections give up items from the last section to the first, each in its own order and no more of
    them than it takes; what was left out is said in the text. When that is not enough, sections that
    have nothing left go altogether, from the last to the first. Sections marked NEVER stay whole, even
    when they alone exceed the budget: a state without its instructions is worse than a long one. The
    cost is linear in the length of the text.

    >>> history = Section("History", ("went north", "went east", "took the key"), Shrink.OLDEST)
    >>> print(render_sections([Section("Task", ("Find it.",)), history], 50))
    Task
    Find it.
    <BLANKLINE>
    History
    (2 left out)
    took the key
    """
    shown = [section for section in sections if any(section.items)]
    parts = [_render(section, len(section.items)) for section in shown]
    excess = sum(map(len, parts)) + len(_GAP) * (len(parts) - 1) - budget_chars
    emptied: list[int] = []
    for place in range(len(shown) - 1, -1, -1):
        section, before = shown[place], len(parts[place])
        if excess <= 0:
            break
        if section.shrink is not Shrink.NEVER:
            count = _most_items(section, before - excess)
            parts[place] = _render(section, count)
            excess += len(parts[place]) - before
            emptied += [place] if count == 0 else []
    for place in emptied:
        if excess > 0:
            excess -= len(parts.pop(place)) + len(_GAP)
    return _GAP.join(parts)


def _most_items(section: Section, budget_chars: int) -> int:
    """Return how many items fit beside the note, when not all of them fit without it."""
    size = len(_render(section, 0)) - len(_note(section, 0))
    is_newest_kept = section.shrink is Shrink.OLDEST
    fitting = 0
    for count, item in enumerate(reversed(section.items) if is_newest_kept else section.items, 1):
        size += len(item) + 1
        if size + len(_note(section, count)) <= budget_chars:
            fitting = count
    return fitting


def _note(section: Section, count: int) -> str:
    return f"({len(section.items) - count} left out)"


def _render(section: Section, count: int) -> str:
    left_out = len(section.items) - count
    note = [_note(section, count)] if left_out else []
    items = section.items[left_out:] if section.shrink is Shrink.OLDEST else section.items[:count]
    lines = [*note, *items] if section.shrink is Shrink.OLDEST else [*items, *note]
    return "\n".join([section.heading, *lines] if section.heading else lines)


class Transcript:
    """Messages that are only ever appended.

    A response with native tool calls is answered by "tool" messages, one for each call, because chat
    endpoints refuse a call without its reply; any other response is answered by a "user" message.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = tuple(messages)

    def extend(self, action: Action, reply: str) -> tuple[Message, ...]:
        """Append a response and what came of it; return all messages so far."""
        response = action.to_message()
        call_ids = [call.call_id for call in response.tool_calls]
        if call_ids:
            first, *others = call_ids
            replies = [Message("tool", reply, tool_call_id=first)]
            note = "(answered in the reply to the first call)"
            replies += [Message("tool", note, tool_call_id=call_id) for call_id in others]
        else:
            replies = [Message("user", reply)]
        self.messages = (*self.messages, response, *replies)
        return self.messages

    def to_json(self) -> list[JsonValue]:
        """Return the messages as JSON, for a snapshot."""
        return [asdict(message) for message in self.messages]

    @classmethod
    def from_json(cls, messages: Sequence[dict[str, Any]]) -> "Transcript":
        """Return the transcript that `to_json` wrote."""
        return cls(
            [
                Message(
                    role=message["role"],
                    content=message["content"],
                    tool_calls=tuple(ToolCall(**call) for call in message["tool_calls"]),
                    tool_call_id=message["tool_call_id"],
                )
                for message in messages
            ]
        )
