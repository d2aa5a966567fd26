"""How a state becomes messages: rebuilt from sections within a budget, or accumulated."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pydantic import JsonValue

from steppo_env.mdp import Action, Message, ToolCall

__all__ = ["Rendering", "Section", "Shrink", "Transcript", "render_sections"]


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
    """A part of the state. An empty section is not rendered."""

    heading: str
    items: tuple[str, ...]
    shrink: Shrink = Shrink.NEVER


def render_sections(sections: Sequence[Section], budget_chars: int) -> str:
    """Join sections into one text of at most `budget_chars` characters.

    Sections give up items from the last section to the first, each in its own order; what was left
    out is said in the text. Sections marked NEVER stay whole, even when they alone exceed the budget:
    a state without its instructions is worse than a long one.

    >>> history = Section("History", ("one", "two", "three"), Shrink.OLDEST)
    >>> print(render_sections([Section("Task", ("Find it.",)), history], 42))
    Task
    Find it.
    <BLANKLINE>
    History
    (2 left out)
    three
    """
    kept = [len(section.items) for section in sections]
    size = sum(len(_render(section, count)) + 2 for section, count in zip(sections, kept)) - 2
    for place in range(len(sections) - 1, -1, -1):
        section = sections[place]
        if section.shrink is Shrink.NEVER:
            continue
        while size > budget_chars and kept[place] > 0:
            before = len(_render(section, kept[place]))
            kept[place] -= 1
            size += len(_render(section, kept[place])) - before
    parts = [_render(section, count) for section, count in zip(sections, kept)]
    return "\n\n".join(part for part in parts if part)


def _render(section: Section, count: int) -> str:
    if not section.items:
        return ""
    left_out = len(section.items) - count
    note = [f"({left_out} left out)"] if left_out else []
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
