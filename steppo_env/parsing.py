"""The one parser of model responses, in training, in evaluation and in the server.

A response may hold, in any order and any number:

* `<think>` or `<analysis>`: reasoning. Nothing inside a closed one is executed.
* `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`
* `<answer>text</answer>`: the last one counts.
* `<action>text</action>` or `<act>text</act>`: commands.

Nothing here raises. What deviates but can mean only one thing is read and reported as RECOVERED;
what would have to be guessed is REJECTED. All tags are found in one pass and each is looked at a
bounded number of times, so a response of a hundred thousand open tags takes linear time.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from steppo_env.call_forms import (
    CALL_FORMAT,
    IssueLog,
    read_call,
    read_native_call,
)
from steppo_env.mdp import Action, ToolCall
from steppo_env.relaxed_json import Reading, Unreadable, excerpt, read_document, read_json
from steppo_env.response_tags import CALL_END, REASONING, Tag, find_tags, is_tag_at, skip_space

__all__ = ["parse_message", "parse_text"]

_COMMANDS: Final = ("action", "act")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_text(text: str) -> Action:
    """Parse a whole response. Never raises.

    >>> action = parse_text('<think>two hops</think><tool_call>{"name": "search", '
    ...                     '"arguments": {"query": "Turing"}}</tool_call>')
    >>> action.tool_calls
    (ToolCall(name='search', arguments={'query': 'Turing'}, call_id=None),)
    >>> action.reasoning
    'two hops'
    >>> parse_text("<answer></answer>").rejections
    ('the <answer> is empty; write <answer>your answer</answer>',)
    """
    return _parse(text, IssueLog(), [], [])


def parse_message(message: Mapping[str, JsonValue]) -> Action:
    """Parse an assistant message of the OpenAI chat format. Never raises.

    The native `tool_calls` come first; what `content` holds follows, by the rules of `parse_text`.

    >>> parse_message({"role": "assistant", "content": None, "tool_calls": [{"id": "c1",
    ...     "type": "function", "function": {"name": "look", "arguments": "{}"}}]}).tool_calls
    (ToolCall(name='look', arguments={}, call_id='c1'),)
    """
    log = IssueLog()
    calls: list[ToolCall] = []
    items = message.get("tool_calls")
    if items is not None and not isinstance(items, list):
        log.rejected("the message's tool_calls must be a list; call the tools again")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        given = item.get("id") if isinstance(item, Mapping) else None
        call_id = _encodable(given) if isinstance(given, str) and given else f"call_{index}"
        call = read_native_call(item, f"tool call {index + 1}", log, call_id)
        if call is not None:
            calls.append(call)
    reasoning: list[str] = []
    thoughts = message.get("reasoning_content")
    if isinstance(thoughts, str):
        reasoning.append(_clean(thoughts, log))
    elif thoughts is not None:
        log.rejected("the message's reasoning_content must be a string; answer again")
    number = len(items) if isinstance(items, list) else 0
    return _parse(_content_text(message.get("content"), log), log, calls, reasoning, number)


def _content_text(content: JsonValue, log: IssueLog) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        log.rejected("the message's content must be a string; answer again in plain text")
        return ""
    texts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(text, str):
            texts.append(text)
        else:
            log.rejected("a part of the message's content is no text; answer again in plain text")
    return "".join(texts)


def _parse(
    text: str, log: IssueLog, calls: list[ToolCall], reasoning: list[str], num_calls: int = 0
) -> Action:
    parser = _Parser(_clean(text, log), log, calls, reasoning, num_calls)
    parser.run()
    thoughts = [thought.strip() for thought in reasoning]
    return Action(
        content=parser.text,
        tool_calls=tuple(calls),
        answer=parser.answer,
        commands=tuple(parser.commands),
        reasoning="\n".join(thought for thought in thoughts if thought) or None,
        issues=log.issues(),
    )


def _encodable(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _clean(text: str, log: IssueLog) -> str:
    """Make sure that the text can be sent and stored as UTF-8."""
    clean = _encodable(text)
    if clean != text:
        log.recovered("lone surrogates in the response were replaced by U+FFFD; write valid text")
    return clean


class _Parser:
    """Walks over the tags of one response, once, from left to right."""

    def __init__(
        self, text: str, log: IssueLog, calls: list[ToolCall], reasoning: list[str], num_calls: int
    ) -> None:
        self.text = text
        self.answer: str | None = None
        self.commands: list[str] = []
        self._log, self._calls, self._reasoning = log, calls, reasoning
        self._num_calls = num_calls
        self._tags, self._well_formed = find_tags(text)
        self._well_formed_starts = sorted(self._well_formed)
        self._closings: dict[str, list[int]] = {name: [] for name in REASONING}
        for index, tag in enumerate(self._tags):
            if tag.is_closing and tag.name in REASONING:
                self._closings[tag.name].append(index)
        self._next = 0  # index of the next tag to look at
        self._visible: list[str] = []  # the text outside the reasoning, up to _seen
        self._seen = 0
        self._has_visible_tag = False
        self._has_acted = False

    def run(self) -> None:
        while self._next < len(self._tags):
            tag = self._tags[self._next]
            self._next += 1
            if tag.name in REASONING:
                if tag.is_closing:
                    self._close_orphan(tag)
                else:
                    self._reason(tag)
                continue
            self._has_visible_tag = True
            if tag.is_closing:
                self._log.ignored(f"</{tag.name}> has no <{tag.name}> before it and was ignored")
                continue
            self._has_acted = True
            if tag.name == "tool_call":
                self._tool_call(tag)
            else:
                self._text_block(tag)
        if not self._has_visible_tag:
            self._call_without_tags()

    def _reason(self, tag: Tag) -> None:
        closings = self._closings[tag.name]
        at = bisect_left(closings, self._next)
        if at < len(closings):
            last = closings[at]
            names = {inner.name for inner in self._tags[self._next : last] if inner.acts}
            for name in sorted(names):
                self._log.ignored(
                    f"a <{name}> inside <{tag.name}> was not executed; write it after </{tag.name}>"
                )
            self._end_reasoning(tag, self._tags[last].start, self._tags[last].end)
            self._next = last + 1
            return
        while self._next < len(self._tags) and not self._tags[self._next].ends_unclosed_reasoning:
            self._next += 1
        self._log.recovered(f"<{tag.name}> was not closed; write </{tag.name}> after the reasoning")
        if self._next == len(self._tags):
            self._end_reasoning(tag, len(self.text), len(self.text))
            return
        stop = self._tags[self._next]
        self._end_reasoning(tag, stop.start, stop.end if stop.is_closing else stop.start)
        self._next += stop.is_closing

    def _end_reasoning(self, tag: Tag, stop: int, resume: int) -> None:
        self._visible.append(self.text[self._seen : tag.start])
        self._reasoning.append(self.text[tag.end : stop])
        self._seen = resume

    def _close_orphan(self, tag: Tag) -> None:
        # Some chat templates end the prompt with <think>: then only its closing tag comes.
        if self._has_acted:
            self._log.ignored(f"</{tag.name}> has no <{tag.name}> before it and was ignored")
            return
        self._reasoning.append(self.text[self._seen : tag.start])
        self._seen = tag.end

    def _tool_call(self, tag: Tag) -> None:
        reading = self._well_formed.get(tag.start) or self._read_block(tag)
        where = f"tool call {self._num_calls + 1}"
        if isinstance(reading, Unreadable):
            self._num_calls += 1
            self._log.rejected(f"{where} is not JSON: {reading.reason}; write {CALL_FORMAT}")
            self._leave_rejected_block(reading.end)
            return
        after = skip_space(self.text, reading.end)
        if self.text.startswith(CALL_END, after):
            self._pass_tags(after + len(CALL_END))
        elif after == len(self.text) or is_tag_at(self.text, after):
            self._log.recovered(f"{where} was not closed; write {CALL_END} after its JSON")
            self._pass_tags(reading.end)
        else:
            self._num_calls += 1
            rest = excerpt(self.text, after)
            self._log.rejected(
                f"{where} must hold one JSON object and nothing else, but {rest} "
                f"came after it; write {CALL_FORMAT}"
            )
            self._leave_rejected_block(reading.end)
            return
        self._log.relaxed(where, reading)
        self._take_calls(reading.value)

    def _read_block(self, tag: Tag) -> Reading | Unreadable:
        at = bisect_left(self._well_formed_starts, tag.end)
        starts = self._well_formed_starts
        return read_json(self.text, tag.end, starts[at] if at < len(starts) else None)

    def _take_calls(self, value: JsonValue) -> None:
        items = [value]
        if isinstance(value, list) and value:
            items = value
            self._log.recovered(f"a list of calls was read; write {CALL_FORMAT} for each of them")
        for item in items:
            self._num_calls += 1
            call = read_call(item, f"tool call {self._num_calls}", self._log)
            if call is not None:
                self._calls.append(call)

    def _pass_tags(self, end: int) -> None:
        while self._next < len(self._tags) and self._tags[self._next].start < end:
            self._next += 1

    def _leave_rejected_block(self, end: int | None) -> None:
        """Skip what stands in a closed block: an <answer> in broken JSON is no answer."""
        self._pass_tags(end or 0)
        for index in range(self._next, len(self._tags)):
            if self._tags[index].name == "tool_call":
                if self._tags[index].is_closing:
                    self._next = index + 1
                return

    def _text_block(self, tag: Tag) -> None:
        """Read an answer or a command, which ends at the next tag, whichever that is."""
        stop = self._tags[self._next] if self._next < len(self._tags) else None
        content = " ".join(self.text[tag.end : stop.start if stop else None].split())
        names = (tag.name,) if tag.name == "answer" else _COMMANDS
        is_closed = stop is not None and stop.is_closing and stop.name in names
        self._next += is_closed
        form = f"<{tag.name}>your {'answer' if tag.name == 'answer' else 'command'}</{tag.name}>"
        if not content:
            self._log.rejected(f"the <{tag.name}> is empty; write {form}")
            return
        if not is_closed or (stop is not None and stop.name != tag.name):
            self._log.recovered(f"<{tag.name}> was not closed; write {form}")
        if tag.name == "answer":
            end = stop.start if stop else len(self.text)
            self.answer = self.text[tag.end : end].strip()
        else:
            self.commands.append(content)

    def _call_without_tags(self) -> None:
        visible = ("".join(self._visible) + self.text[self._seen :]).strip()
        if visible.startswith("```") and visible.endswith("```") and len(visible) > 6:
            visible = visible[3:-3].removeprefix("json").strip()
        reading = read_document(visible) if visible.startswith("{") else None
        if not isinstance(reading, Reading) or not isinstance(reading.value, dict):
            return
        if {"name", "arguments"} <= reading.value.keys():
            self._log.recovered(f"a tool call without tags was read; write {CALL_FORMAT}")
            self._log.relaxed(f"tool call {self._num_calls + 1}", reading)
            self._take_calls(reading.value)
