"""The expert: searches that really bring the supporting passages, then the known answer."""

import json
from collections.abc import Iterator, Mapping

from steppo_env.mdp import Action
from steppo_env.parsing import parse_text
from steppo_multihop_qa.history import History
from steppo_multihop_qa.prompts import MAX_CALLS, MAX_QUERY
from steppo_multihop_qa.retrieval import Passage, Retriever
from steppo_multihop_qa.tasks import MultihopTask

__all__ = ["Expert"]

Plan = tuple[tuple[str, ...], ...]
"""The queries of each search step to come."""


class Expert:
    """Plans, in any state, the searches that remain before the answer.

    It makes one search for each hop whose passage has not been seen, several in one response only
    when too few steps are left for that. A query is the shortest that brings the passage within the
    `top_k` results of the retriever in use. Without gold passages it searches for the question.
    """

    def __init__(self, retriever: Retriever, passages: Mapping[str, Passage], top_k: int) -> None:
        self._retriever = retriever
        self._passages = passages
        self._top_k = top_k

    def plan(self, task: MultihopTask, history: History, steps_left: int) -> Plan:
        """Return the queries of each search step to come; the answer follows the last.

        Args:
            steps_left: Steps until the limit, of which the answer takes one.
        """
        queries = self._queries(task, history)
        steps: list[tuple[str, ...]] = []
        while queries and steps_left > 1:
            count = min(MAX_CALLS, -(-len(queries) // (steps_left - 1)))
            steps.append(tuple(queries[:count]))
            queries = queries[count:]
            steps_left -= 1
        return tuple(steps)

    def action(self, task: MultihopTask, plan: Plan) -> Action:
        """Return the first response of a plan."""
        if not plan:
            return parse_text(
                f"<think>The question is settled.</think>\n<answer>{task.answers[0]}</answer>"
            )
        calls = "\n".join(f"<tool_call>{_call(query)}</tool_call>" for query in plan[0])
        aim = "what is still missing" if task.supporting else "the question itself"
        return parse_text(f"<think>I will search for {aim}.</think>\n{calls}")

    def _queries(self, task: MultihopTask, history: History) -> list[str]:
        if not task.supporting:
            # Cut at a word, so that the query is no longer than the tool allows.
            query = task.question[: MAX_QUERY + 1]
            query = query.rsplit(maxsplit=1)[0] if len(query) > MAX_QUERY else query
            return [] if history.searches else [query]
        seen = set(history.passage_numbers)
        queries: list[str] = []
        for hop in task.supporting:
            if seen.isdisjoint(hop):
                wanted = self._query_for(hop, history)
                if wanted is not None:
                    queries.append(wanted)
                    seen.update(self._found(wanted))
        return queries

    def _query_for(self, hop: tuple[str, ...], history: History) -> str | None:
        """Return the first candidate that finds a passage of the hop; None when none does."""
        for passage_id in hop:
            for query in _candidates(self._passages[passage_id]):
                if history.number_of(query) is None and not self._found(query).isdisjoint(hop):
                    return query
        return None

    def _found(self, query: str) -> set[str]:
        return {item.passage_id for item in self._retriever.search(query, self._top_k)}


def _candidates(passage: Passage) -> Iterator[str]:
    """Yield queries for a passage: its title, then with more and more of its text, then its parts.

    The parts tell apart passages of one title that begin alike.
    """
    text = passage.text.split()
    longest = [[passage.title, *text[:count]] for count in (0, 8, 16, 32, len(text))]
    parts = [text[start : start + 32] for start in range(0, len(text), 16)]
    for query_words in (*longest, *parts):
        yield " ".join(query_words)[:MAX_QUERY].strip() or "passage"


def _call(query: str) -> str:
    call = json.dumps({"name": "search", "arguments": {"query": query}}, ensure_ascii=False)
    # No text of a passage may close the tag that the call stands in.
    return call.replace("<", "\\u003c")
