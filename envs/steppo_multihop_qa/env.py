"""MultihopQA: search a corpus until the question is settled, then answer."""

from collections.abc import Sequence
from copy import copy
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import JsonValue

from steppo_env.env import StepEnv
from steppo_env.keys import digest
from steppo_env.mdp import Action, Message, Observation, Outcome, ToolCall
from steppo_env.metrics import exact_match, token_f1
from steppo_env.tasks import ListedTasks
from steppo_env.tools import Rejection
from steppo_multihop_qa.expert import Expert, Plan
from steppo_multihop_qa.history import History, Reply
from steppo_multihop_qa.options import MultihopOptions, RewardKind
from steppo_multihop_qa.prompts import (
    MAX_CALLS,
    TOOLBOX,
    Library,
    SearchArguments,
    system_text,
    toolbox,
)
from steppo_multihop_qa.retrieval import Corpus, Retriever, index_version, shared_retriever
from steppo_multihop_qa.tasks import MultihopTask, Pack, load_pack, world_pack

__all__ = ["MultihopQA"]

MAX_REASONS = 8
"""Bad calls of one response that are explained one by one; the others are counted."""
HOW_TO_ACT = (
    'write <tool_call>{"name": "search", "arguments": {"query": "..."}}</tool_call> to search, or '
    "<answer>...</answer> to answer"
)


def _pack(data: Path | None) -> Pack:
    return world_pack() if data is None else load_pack(data)


@cache
def _corpus(data: Path | None) -> Corpus:
    return Corpus(_pack(data).passages.values())


@cache
def _tasks(data: Path | None, index: str) -> ListedTasks[MultihopTask]:
    """Return the tasks under a version that names the index too: it decides what is found."""
    tasks = copy(_pack(data).tasks)
    tasks.version = digest([tasks.version, index])
    return tasks


class MultihopQA(StepEnv[MultihopTask, MultihopOptions]):
    """Questions whose answer takes facts from several passages; the reward is the answer's score.

    A response makes up to four searches or gives the answer, which ends the episode. In a response
    with both the answer counts and the searches are rejected: nothing could be made of their
    results. A query with the same words as an earlier one is answered by pointing to what that one
    found. The state is the question, the queries and the passages; it is complete (Markov).
    """

    env_id = "steppo/MultihopQA-v0"
    options_type = MultihopOptions
    is_blocking = True

    @classmethod
    def load_tasks(cls, options: MultihopOptions) -> ListedTasks[MultihopTask]:
        return _tasks(options.data, index_version(options, _corpus(options.data)))

    def begin(self, task: MultihopTask, rng: np.random.Generator) -> Observation:
        self._open()
        self._history = History()
        forced = [task.question] if self.options.forced_first_search else []
        made, _ = self._answer_queries(forced)
        self._history.reply = Reply(made, is_first=True)
        return self._observe(task)

    def act(self, action: Action) -> Outcome:
        history, task = self._history, self.task
        answer = action.answer.strip() if action.answer is not None else None
        if answer:
            rejected = _surplus_beside_answer(action)
            history.answer = answer
            history.reply = Reply(notes=(*action.rejections, *rejected))
        else:
            queries, rejected = _read_calls(action)
            made, repeated = self._answer_queries(queries)
            history.reply = Reply(made, repeated, (*action.rejections, *rejected))
        return Outcome(
            self._observe(task),
            reward_terms=self._reward_terms(task),
            terminated=history.answer is not None,
            rejected=rejected,
            info=self._metrics(task),
        )

    def expert(self) -> Action | None:
        if self._history.answer is not None:
            return None
        return self._expert.action(self.task, self._plan())

    def distance(self) -> int | None:
        return 0 if self._history.answer is not None else len(self._plan()) + 1

    def save_state(self) -> bytes:
        return self._history.to_json()

    def load_state(self, task: MultihopTask, state: bytes) -> Observation:
        self._open()
        self._history = History.from_json(state)
        return self._observe(task)

    def _open(self) -> None:
        """Take hold of what all episodes share; only the first episode of a process waits for it."""
        options = self.options
        passages = _pack(options.data).passages
        matches_words = options.retriever.matches_words
        self._library = Library(passages, options.passage_chars, matches_words)
        self._retriever: Retriever = shared_retriever(options, _corpus(options.data))
        self._expert = Expert(self._retriever, passages, options.top_k)

    def _plan(self) -> Plan:
        steps_left = self.options.step_limit - self.num_steps
        return self._expert.plan(self.task, self._history, steps_left)

    def _answer_queries(self, queries: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Make the new ones of the searches; return the numbers of the new and the repeated."""
        made: list[int] = []
        repeated: list[int] = []
        new = [query for query in queries if self._history.number_of(query) is None]
        found = dict(zip(new, self._retriever.search_batch(new, self.options.top_k)))
        for query in queries:
            number = self._history.number_of(query)
            if number is None:
                passage_ids = [passage.passage_id for passage in found[query]]
                made.append(self._history.add(query, passage_ids))
            else:
                repeated.append(number)
        self._history.num_repeated += len(repeated)
        return tuple(made), tuple(repeated)

    def _reward_terms(self, task: MultihopTask) -> dict[str, float]:
        kind, weight = self.options.reward, self.options.f1_weight
        if kind is not RewardKind.MIXED:
            return {"answer": self._score(task, kind)}
        # Two terms, so that a store tells what was earned by an exact answer and what by a near one.
        return {
            "answer_em": (1.0 - weight) * self._score(task, RewardKind.EM),
            "answer_f1": weight * self._score(task, RewardKind.F1),
        }

    def _score(self, task: MultihopTask, kind: RewardKind) -> float:
        """Return the answer's exact match or F1; 0 before the answer."""
        answer = self._history.answer
        if answer is None:
            return 0.0
        if kind is RewardKind.F1:
            return token_f1(answer, task.answers)
        return float(exact_match(answer, task.answers))

    def _metrics(self, task: MultihopTask) -> dict[str, JsonValue]:
        history = self._history
        em = self._score(task, RewardKind.EM)
        hops_seen = [not history.passage_numbers.keys().isdisjoint(hop) for hop in task.supporting]
        return {
            "success": em == 1.0,
            "em": em,
            "f1": self._score(task, RewardKind.F1),
            "num_searches": len(history.searches) - self.options.forced_first_search,
            "num_repeated_searches": history.num_repeated,
            "num_passages": len(history.passage_numbers),
            "supporting_recall": sum(hops_seen) / len(hops_seen) if hops_seen else None,
        }

    def _observe(self, task: MultihopTask) -> Observation:
        matches_words = self.options.retriever.matches_words
        system = system_text(self.options.top_k, matches_words=matches_words)
        budget = max(0, self.options.state_chars - len(system))
        user = self._library.state_text(task.question, self._history, budget)
        reply = self._library.reply_text(self._history)
        if self._history.reply.is_first:
            reply = "\n\n".join(filter(None, (task.question, reply)))
        return self.observe(
            (Message("system", system), Message("user", user)),
            text=reply,
            state=self._history.canonical(),
            tools=toolbox(matches_words=matches_words).specs,
            task=task,
        )


def _surplus_beside_answer(action: Action) -> tuple[str, ...]:
    rejected: list[str] = []
    if action.tool_calls:
        count = len(action.tool_calls)
        rejected.append(
            f"{count} tool call{'s' if count > 1 else ''} beside the answer not executed: an answer "
            "ends the episode; search first and answer in a later response"
        )
    return (*rejected, *_rejected_commands(action))


def _read_calls(action: Action) -> tuple[list[str], tuple[str, ...]]:
    """Return the queries to search for, and why the other parts of the response are rejected."""
    queries: list[str] = []
    reasons: list[str] = []
    num_surplus = 0
    for call in action.tool_calls:
        read = _read_call(call)
        if isinstance(read, Rejection):
            reasons.append(read.detail)
        elif len(queries) < MAX_CALLS:
            queries.append(read)
        else:
            num_surplus += 1
    rejected = reasons[:MAX_REASONS]
    if len(reasons) > MAX_REASONS:
        rejected.append(f"{len(reasons) - MAX_REASONS} more tool calls could not be executed")
    if num_surplus:
        rejected.append(
            f"at most {MAX_CALLS} searches are made in one response; the last {num_surplus} of "
            "yours not executed"
        )
    rejected += _rejected_commands(action)
    if not queries and not rejected and not action.rejections:
        rejected.append(f"the response neither searches nor answers; {HOW_TO_ACT}")
    return queries, tuple(rejected)


def _read_call(call: ToolCall) -> str | Rejection:
    read = TOOLBOX.read(call)
    return read if isinstance(read, Rejection) else cast(SearchArguments, read).query


def _rejected_commands(action: Action) -> tuple[str, ...]:
    if not action.commands:
        return ()
    return (f"<action> and <act> mean nothing here; {HOW_TO_ACT}",)
