"""The words of multi-hop QA: instructions, the tool, the state, and the reply to a response."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from steppo_env.rendering import Section, Shrink, render_sections
from steppo_env.tools import Tool, ToolArguments, Toolbox
from steppo_multihop_qa.history import History
from steppo_multihop_qa.retrieval import Passage

__all__ = [
    "MAX_CALLS",
    "MAX_QUERY",
    "TOOLBOX",
    "Library",
    "SearchArguments",
    "system_text",
    "toolbox",
]

MAX_CALLS = 4
"""Most tool calls that one response may make."""
MAX_QUERY = 512
"""Longest query, in characters."""
SHOWN_QUERY = 100
"""Longest query beside a passage, in characters; the list of searches has it whole."""
SHOWN_ANSWER = 200
"""Longest answer in a state after the end, in characters."""


def _one_line(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("the query is blank; give the words to look for")
    return text


Query = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_QUERY),
    AfterValidator(_one_line),
    AfterValidator(_not_blank),
]


class SearchArguments(ToolArguments):
    """Search the collection and return the passages that best match the words of the query."""

    query: Query = Field(
        description="Words that the wanted passage should contain, such as names and distinctive "
        "terms."
    )


class MeaningArguments(SearchArguments):
    """Search the collection and return the passages that best match the query."""

    query: Query = Field(description="What the wanted passage should tell, in a few words.")


TOOLBOX = Toolbox(Tool("search", SearchArguments))
MEANING_TOOLBOX = Toolbox(Tool("search", MeaningArguments))
"""The same tool over a retriever that does not compare words."""

_SYSTEM = """\
You answer a question by searching a collection of passages. The answer is seldom in one passage: \
find one fact, and use it to search for the next. Rely on the passages, not on memory.

Think first, briefly: what do the passages already settle, and what is still missing? Then do one \
of two things.

To search, call the tool `search`:
<think>what is known, what is missing</think>
<tool_call>{"name": "search", "arguments": {"query": "words to look for"}}</tool_call>
You may make up to MAX_CALLS calls in one response, each in its own <tool_call> tags; each returns \
at most TOP_K passages. The arguments have this JSON Schema:
SCHEMA
HOW_TO_SEARCH Do not repeat a search \
that was already made: vary its words, or look for another link of the chain.

To answer, once the passages settle it:
<think>how the passages lead to the answer</think>
<answer>the answer</answer>
Give the answer alone, in as few words as the passages use for it: a name, a date, a number, yes \
or no. An answer is final and ends the episode, so never put it in one response with a search."""


WORDS = "A search matches words, not meaning, so use names and distinctive terms."
MEANING = "A search matches meaning, so say what is to be found, with the names that are known."


def toolbox(*, matches_words: bool) -> Toolbox:
    """Return the tool as it is described for a retriever that compares words, or does not."""
    return TOOLBOX if matches_words else MEANING_TOOLBOX


@cache
def system_text(top_k: int, *, matches_words: bool = True) -> str:
    """Return the instructions: the task, the tool and the output format."""
    schema = json.dumps(toolbox(matches_words=matches_words).specs[0].parameters)
    text = _SYSTEM.replace("HOW_TO_SEARCH", WORDS if matches_words else MEANING)
    text = text.replace("MAX_CALLS", str(MAX_CALLS)).replace("TOP_K", str(top_k))
    return text.replace("SCHEMA", schema)


@dataclass(frozen=True, slots=True)
class Library:
    """Renders a history over the passages of a corpus.

    Attributes:
        passages: Every passage, by id.
        passage_chars: Longest text of a passage as shown, in characters.
        matches_words: True when a search compares words; says why one found nothing.
    """

    passages: Mapping[str, Passage]
    passage_chars: int
    matches_words: bool = True

    def state_text(self, question: str, history: History, budget_chars: int) -> str:
        """Return the state as the user message of a rebuilt prompt."""
        searches = tuple(
            f'{number}. "{search.query}" ({_outcome(history, number - 1)})'
            for number, search in enumerate(history.searches, 1)
        )
        passages = tuple(
            self._passage(history, passage_id, shows_query=True)
            for passage_id in history.passage_numbers
        )
        notes = tuple(f"- {note}" for note in self._notes(history))
        sections = (
            Section("Question", (question,)),
            Section("Searches so far", searches, Shrink.OLDEST),
            Section("Passages found so far", passages, Shrink.OLDEST),
            Section("About your last response", notes),
            Section("", (_closing(history),)),
        )
        return render_sections(sections, budget_chars)

    def reply_text(self, history: History) -> str:
        """Return the bare result of the last response, as the reply to it."""
        parts = [self._result(history, number) for number in history.reply.made]
        notes = self._notes(history)
        if notes:
            parts.append("\n".join(["About your last response:", *(f"- {note}" for note in notes)]))
        if history.answer is not None:
            parts.append(_closing(history))
        return "\n\n".join(parts)

    def _result(self, history: History, number: int) -> str:
        search, new = history.searches[number], history.new_in(number)
        again = [self._name(history, item) for item in search.found if item not in new]
        lines = [f'Search "{search.query}" ({_outcome(history, number)})']
        lines += [self._passage(history, passage_id) for passage_id in new]
        if again:
            lines.append(f"Found again: {', '.join(again)}")
        return "\n".join(lines)

    def _passage(self, history: History, passage_id: str, *, shows_query: bool = False) -> str:
        found_by = ""
        if shows_query:
            finder = history.finders[history.passage_numbers[passage_id]]
            query = _shorten(history.searches[finder].query, SHOWN_QUERY)
            found_by = f' (found by "{query}")'
        text = _shorten(self.passages[passage_id].text, self.passage_chars)
        return f"{self._name(history, passage_id)}{found_by}\n{text}"

    def _notes(self, history: History) -> tuple[str, ...]:
        """Return what the policy is told about its last response, rejections first."""
        if history.reply.is_first:
            return ()
        nothing = "no passage has any word of" if self.matches_words else "nothing was found for"
        empty = [
            f'{nothing} "{history.searches[number].query}"; try other words'
            for number in history.reply.made
            if not history.searches[number].found
        ]
        repeated = [_repeated(history, number) for number in history.reply.repeated]
        return (*history.reply.notes, *empty, *repeated)

    def _name(self, history: History, passage_id: str) -> str:
        number = history.passage_numbers[passage_id] + 1
        return f"[{number}] {self.passages[passage_id].title}"


def _closing(history: History) -> str:
    if history.answer is not None:
        return f"You answered: {_shorten(history.answer, SHOWN_ANSWER)}\nThe episode is over."
    return "Search for what is still missing, or give the final answer."


def _outcome(history: History, number: int) -> str:
    num_found, num_new = len(history.searches[number].found), len(history.new_in(number))
    if num_found == 0:
        return "no passages"
    return f"{num_found} passage{'s' if num_found > 1 else ''}, {num_new} new"


def _repeated(history: History, number: int) -> str:
    search = history.searches[number]
    places = [f"[{history.passage_numbers[item] + 1}]" for item in search.found]
    found = f"it found {', '.join(places)}" if places else "it found nothing"
    return f'"{search.query}" was searched before: {found}; search for something else'


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = text[:limit]
    whole_words = cut.rsplit(maxsplit=1)[0] if not text[limit].isspace() else cut.rstrip()
    # One word longer than the limit has no place to cut at.
    return f"{whole_words if len(whole_words) > limit // 2 else cut} ..."
