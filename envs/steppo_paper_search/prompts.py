"""The words of PaperSearch: its tools, its instructions, and a state in sections."""

from collections.abc import Sequence
from functools import cache

from pydantic import Field

from steppo_env.rendering import Section, Shrink, render_sections
from steppo_env.tools import Tool, ToolArguments, Toolbox
from steppo_paper_search.episode import CallRecord, Episode
from steppo_paper_search.library import MAX_CALLS, MAX_QUERY_CHARS, View
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.selector import Selector

__all__ = [
    "TOOLBOX",
    "Expand",
    "Search",
    "excerpt",
    "render_request",
    "render_result",
    "render_state",
    "system_prompt",
]


class Search(ToolArguments):
    """Search the library: returns the papers whose title and abstract match the words best."""

    query: str = Field(
        min_length=1,
        max_length=MAX_QUERY_CHARS,
        description="A few words that the titles or abstracts of wanted papers contain.",
    )


class Expand(ToolArguments):
    """Follow citations: returns the references of a listed paper and the papers that cite it."""

    paper_id: str = Field(
        min_length=1, max_length=200, description="Id of a listed paper, copied exactly."
    )


TOOLBOX = Toolbox(Tool("search", Search), Tool("expand", Expand))


@cache
def system_prompt(search_top_k: int, expand_top_k: int) -> str:
    """Return the instructions. They hold for a whole episode, and every episode shares them."""
    return f"""\
You are a research librarian. Given a request, find every paper in the library that answers it.

You work in steps. In each step, think briefly, then call tools:

search(query): lists up to {search_top_k} papers whose title and abstract match the words \
of the query best. Words count, not meaning: use a few telling words, and try other wordings, \
because papers may name the same thing differently.
expand(paper_id): lists the references of a listed paper and the papers that cite it, up to \
{expand_top_k} of each. Good for a paper that is central to the request: what it cites and \
what cites it is often wanted too.

Write each call on its own, up to {MAX_CALLS} in one step; they are executed in order:
<think>what is known, what is missing, what to try next</think>
<tool_call>{{"name": "search", "arguments": {{"query": "words to look for"}}}}</tool_call>
<tool_call>{{"name": "expand", "arguments": {{"paper_id": "an id from the list"}}}}</tool_call>

Whatever a call finds is added to the list of papers. A query made before and a paper expanded \
before bring nothing new. The state shows the listed papers that match the request best; ids stand \
in [brackets].

To stop, answer. Either all listed papers are your result:
<answer>done</answer>
or only those that you name by id, separated by commas:
<answer>first id, second id</answer>
A response with neither a call nor an answer does nothing but use up a step."""


def render_request(query: str) -> str:
    """Return the bare observation before the first step."""
    return f"Request: {query}"


def render_state(
    view: View,
    episode: Episode,
    ranked: Sequence[str],
    options: PaperSearchOptions,
    selector: Selector | None,
) -> str:
    """Return the whole state as the policy sees it.

    Args:
        ranked: The listed papers, best first.
        selector: Whose scores to show, or None to show none.
    """
    expanded = set(episode.expanded)
    new = set(episode.new) if episode.num_steps else set()
    opened = [paper_id for paper_id in ranked if paper_id in expanded]
    closed = [paper_id for paper_id in ranked if paper_id not in expanded]
    shown_opened = opened[: options.list_size // 2]
    shown_closed = closed[: options.list_size - len(shown_opened)]
    left = options.step_limit - episode.num_steps
    sections = [
        Section("Request", (view.query,)),
        Section("Steps left", (str(left),)),
        Section("Actions so far", tuple(map(_history_item, episode.calls)), Shrink.OLDEST),
        Section(
            f"Papers not expanded, best first ({len(shown_closed)} of {len(closed)} shown)",
            _paper_items(view, shown_closed, new, options, selector),
            Shrink.LOWEST,
        ),
        Section(
            f"Papers expanded, best first ({len(shown_opened)} of {len(opened)} shown)",
            _paper_items(view, shown_opened, new, options, selector),
            Shrink.LOWEST,
        ),
        Section("Feedback on your last response", _bullets(episode.feedback)),
        Section("", (_closing(episode),)),
    ]
    return render_sections(sections, options.state_chars)


def render_result(
    view: View,
    episode: Episode,
    ranked: Sequence[str],
    options: PaperSearchOptions,
    selector: Selector | None,
) -> str:
    """Return what the last step brought, without instructions or history."""
    new = set(episode.new)
    shown = [paper_id for paper_id in ranked if paper_id in new][: options.list_size]
    calls = tuple(map(_call_line, episode.last_calls))
    if not calls and episode.answer is None:
        calls = ("No tool was called.",)
    sections = [
        Section("", calls),
        Section(
            f"New papers, best first ({len(shown)} of {len(new)} shown)",
            _paper_items(view, shown, set(), options, selector),
            Shrink.LOWEST,
        ),
        Section("Feedback", _bullets(episode.feedback)),
    ]
    if episode.answer is not None:
        sections.append(Section("", (_closing(episode),)))
    return render_sections(sections, options.state_chars)


def excerpt(text: str, limit: int = 200) -> str:
    """Return a text on one line of at most `limit` characters.

    >>> excerpt("a long  query", 8)
    'a lon...'
    """
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def _closing(episode: Episode) -> str:
    if episode.answer is not None:
        return f"The search has ended. Your result holds {_count(len(episode.answer), 'paper')}."
    if not episode.calls:
        return "Nothing is listed yet. What do you search for?"
    return "What do you do next: search, expand, or stop with an answer?"


def _history_item(call: CallRecord) -> str:
    return f"Step {call.step}: {_call_line(call)}"


def _call_line(call: CallRecord) -> str:
    name = "[Search]" if call.kind == "search" else "[Expand]"
    line = f"{name} {excerpt(call.argument)}"
    if call.is_repeat:
        return f"{line} -> repeated, nothing new"
    return f"{line} -> {_count(call.num_found, 'paper')}, {call.num_new} new"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _bullets(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"- {line}" for line in lines)


def _paper_items(
    view: View,
    paper_ids: Sequence[str],
    new: set[str],
    options: PaperSearchOptions,
    selector: Selector | None,
) -> tuple[str, ...]:
    scores = [None] * len(paper_ids) if selector is None else selector.scores(paper_ids)
    items = []
    for paper_id, score in zip(paper_ids, scores):
        paper = view.paper(paper_id)
        facts = [
            "year unknown" if paper.year is None else str(paper.year),
            *(["new"] if paper_id in new else []),
            *([] if score is None else [f"score {score:.2f}"]),
        ]
        item = f"[{paper_id}] {paper.title} ({', '.join(facts)})"
        if options.abstract_words:
            item += f"\n  {_cut(paper.abstract, options.abstract_words)}"
        items.append(item)
    return tuple(items)


def _cut(abstract: str | None, limit: int) -> str:
    if abstract is None:
        return "No abstract."
    words = abstract.split()
    return abstract if len(words) <= limit else " ".join(words[:limit]) + " ..."
