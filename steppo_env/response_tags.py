"""Finds the tags of a model response, in one pass."""

import re
from dataclasses import dataclass
from typing import Final

from steppo_env.call_forms import is_well_formed
from steppo_env.relaxed_json import Reading, read_json

__all__ = ["CALL_END", "REASONING", "Tag", "find_tags", "is_tag_at", "skip_space"]

REASONING: Final = ("think", "analysis")
CALL_END: Final = "</tool_call>"

_TAG = re.compile(r"<(/?)(think|analysis|tool_call|answer|action|act)>")
_SPACE = re.compile(r"\s*+")


@dataclass(frozen=True, slots=True)
class Tag:
    """An opening or closing tag; the text from `start` to `end` is the tag itself."""

    name: str
    is_closing: bool
    start: int
    end: int

    @property
    def acts(self) -> bool:
        """True when it opens something to execute."""
        return not self.is_closing and self.name not in REASONING

    @property
    def ends_unclosed_reasoning(self) -> bool:
        """True when reasoning that lacks its own closing tag cannot reach beyond this one."""
        return self.acts or (self.is_closing and self.name in REASONING)


def find_tags(text: str) -> tuple[list[Tag], dict[int, Reading]]:
    """Find the tags, and the well-formed calls by the start of their opening tag.

    A well-formed call is one unit wherever it stands: the tags inside its strings are left out,
    and no broken or relaxed call before it may swallow it.
    """
    tags: list[Tag] = []
    calls: dict[int, Reading] = {}
    resume = 0
    for match in _TAG.finditer(text):
        if match.start() < resume:
            continue
        tag = Tag(match[2], bool(match[1]), match.start(), match.end())
        tags.append(tag)
        if tag.name == "tool_call" and not tag.is_closing:
            reading = read_json(text, tag.end, strict=True)
            if isinstance(reading, Reading) and is_well_formed(reading.value):
                after = skip_space(text, reading.end)
                if text.startswith(CALL_END, after):
                    calls[tag.start] = reading
                    resume = after + len(CALL_END)
    return tags, calls


def skip_space(text: str, start: int) -> int:
    """Return the index of the first character that is no white space."""
    space = _SPACE.match(text, start)
    return start if space is None else space.end()


def is_tag_at(text: str, position: int) -> bool:
    """True when a tag begins at this index."""
    return _TAG.match(text, position) is not None
