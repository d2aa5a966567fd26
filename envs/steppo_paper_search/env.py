"""PaperSearch: find the papers that answer a request, by searching and by following citations."""

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
from pydantic import JsonValue

from steppo_env.env import StepEnv
from steppo_env.mdp import Action, IssueKind, Message, Observation, Outcome
from steppo_env.tools import Rejection
from steppo_paper_search.episode import Episode
from steppo_paper_search.expert import expert_action, steps_to_go
from steppo_paper_search.library import MAX_CALLS, View, Window
from steppo_paper_search.opening import open_judge, open_library
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.prompts import (
    TOOLBOX,
    Expand,
    Search,
    excerpt,
    render_request,
    render_result,
    render_state,
    system_prompt,
)
from steppo_paper_search.retrieval import query_key
from steppo_paper_search.rewards import list_facts, reward_terms
from steppo_paper_search.selector import Selector, make_selector
from steppo_paper_search.tasks import PaperTask, PaperTasks, paper_tasks

__all__ = ["PaperSearch"]

ANSWER_FORM = (
    "write <answer>done</answer> for all listed papers, or ids of listed papers separated by commas"
)

_SEPARATORS = re.compile(r"[\s,;]+")
_ORNAMENTS = "[](){}<>\"'`*-."


class PaperSearch(StepEnv[PaperTask, PaperSearchOptions]):
    """A library with a lexical search and a citation graph; the aim is to list all gold papers.

    Up to five calls of a step are executed in order, each on the list that the one before it left.
    An answer stops the episode, after the calls beside it. The reward of a step is by default the
    share of the gold papers that it newly listed, so that an episode's return is its recall.
    """

    env_id = "steppo/PaperSearch-v0"
    options_type = PaperSearchOptions
    is_blocking = True

    @classmethod
    def load_tasks(cls, options: PaperSearchOptions) -> PaperTasks:
        tasks = paper_tasks(options)
        # A bad address is told to who makes the environment, not to the first episode.
        open_library(options)
        open_judge(options)
        return tasks

    def begin(self, task: PaperTask, rng: np.random.Generator) -> Observation:
        self._enter(task, Episode())
        return self._observe(task, ())

    def act(self, action: Action) -> Outcome:
        state = self._state
        state.num_steps += 1
        state.feedback = ()
        rejected: list[str] = []
        notes: list[str] = []
        arrivals = self._execute(action, rejected, notes)
        if action.answer is not None:
            state.answer = self._read_answer(action.answer, rejected)
        elif not (action.tool_calls or action.rejections or rejected):
            rejected.append(
                "nothing was executed: the response has neither a tool call nor an answer; call "
                "search or expand, or stop with <answer>done</answer>"
            )
        ignored = [issue.detail for issue in action.issues if issue.kind is IssueKind.IGNORED]
        state.feedback = (*action.rejections, *rejected, *ignored, *notes)
        ranked = self._view.ranked(state.listed)
        return Outcome(
            self._observe(self.task, ranked),
            reward_terms=reward_terms(self.options, state, arrivals, self._gold, self._selector),
            terminated=state.answer is not None,
            rejected=tuple(rejected),
            info=list_facts(self.options, state, ranked, self._gold),
        )

    def expert(self) -> Action | None:
        return expert_action(self._view, self._state, self.task.gold)

    def distance(self) -> int | None:
        return steps_to_go(self._view, self._state, self.task.gold)

    def save_state(self) -> bytes:
        return self._state.to_bytes(self._view.save(self._state.listed))

    def load_state(self, task: PaperTask, state: bytes) -> Observation:
        episode, papers = Episode.from_bytes(state)
        self._enter(task, episode)
        self._view.load(papers)
        return self._observe(task, self._view.ranked(episode.listed))

    def _enter(self, task: PaperTask, state: Episode) -> None:
        options = self.options
        self._state = state
        self._gold = frozenset(task.gold)
        window = Window(
            query=task.query,
            latest_year=task.latest_year,
            hidden=task.hidden,
            hidden_title=task.hidden_title,
            search_top_k=options.search_top_k,
            expand_top_k=options.expand_top_k,
        )
        self._view: View = open_library(options).view(window)
        self._selector: Selector = make_selector(
            options.selector, self._view, self._gold, open_judge(options)
        )

    def _execute(
        self, action: Action, rejected: list[str], notes: list[str]
    ) -> list[tuple[str, ...]]:
        """Execute the calls in order; return the papers that each one newly lists."""
        if action.commands:
            rejected.append(
                "commands in <action> or <act> mean nothing here; write tool calls or an answer"
            )
        arrivals = []
        for call in action.tool_calls[:MAX_CALLS]:
            arguments = TOOLBOX.read(call)
            if isinstance(arguments, Rejection):
                rejected.append(arguments.detail)
            elif isinstance(arguments, Search):
                arrivals.append(self._search(arguments.query, rejected, notes))
            else:
                arrivals.append(self._expand(cast(Expand, arguments).paper_id, rejected, notes))
        num_surplus = len(action.tool_calls) - MAX_CALLS
        if num_surplus > 0:
            rejected.append(
                f"a step executes at most {MAX_CALLS} calls; the last {num_surplus} of your "
                f"{len(action.tool_calls)} were not executed"
            )
        return arrivals

    def _search(self, query: str, rejected: list[str], notes: list[str]) -> tuple[str, ...]:
        if not query_key(query):
            rejected.append(
                f"the query {excerpt(query, 60)!r} has no word to search for; use letters a to z "
                "or digits"
            )
            return ()
        earlier = self._state.earlier("search", query)
        if earlier is not None:
            self._state.repeat("search", query)
            notes.append(
                f'you searched for "{excerpt(query, 80)}" in step {earlier.step}: the same words '
                "find the same papers; use other words"
            )
            return ()
        new = self._state.search(self._view, query)
        if not self._state.calls[-1].num_found:
            notes.append(f'no paper was found for "{excerpt(query, 80)}"; use other words')
        return new

    def _expand(self, paper_id: str, rejected: list[str], notes: list[str]) -> tuple[str, ...]:
        paper_id = paper_id.strip().removeprefix("[").removesuffix("]")
        if paper_id not in self._state.listed:
            rejected.append(
                f"expand takes the id of a listed paper; {excerpt(paper_id, 80)!r} is not listed"
            )
            return ()
        earlier = self._state.earlier("expand", paper_id)
        if earlier is not None:
            self._state.repeat("expand", paper_id)
            notes.append(
                f"you expanded {paper_id} in step {earlier.step}: what it cites and what cites it "
                "is listed already"
            )
            return ()
        new = self._state.expand(self._view, paper_id)
        if not self._state.calls[-1].num_found:
            notes.append(f"{paper_id} has no known references and nothing known cites it")
        return new

    def _read_answer(self, text: str, rejected: list[str]) -> tuple[str, ...] | None:
        """Return the papers that an answer names, or None when it is not of the form asked for."""
        listed = set(self._state.listed)
        words = [word for word in _SEPARATORS.split(text) if word.strip(_ORNAMENTS)]
        if [word.strip(_ORNAMENTS).lower() for word in words] == ["done"]:
            return tuple(self._view.ranked(listed))
        named: dict[str, None] = {}
        unknown: dict[str, None] = {}
        for word in words:
            paper_id = word if word in listed else word.strip(_ORNAMENTS)
            if paper_id in listed:
                named[paper_id] = None
            else:
                unknown[excerpt(word, 40)] = None
        if unknown or not named:
            shown = ", ".join(map(repr, list(unknown)[:5])) or "nothing"
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            rejected.append(
                f"the answer was not taken: {shown}{more} is no id of a listed paper; {ANSWER_FORM}"
            )
            return None
        return tuple(named)

    def _observe(self, task: PaperTask, ranked: Sequence[str]) -> Observation:
        """Return the state; `ranked` are the listed papers, best first."""
        state, view, options = self._state, self._view, self.options
        selector = self._selector if options.show_scores else None
        shown = render_state(view, state, ranked, options, selector)
        result = (
            render_result(view, state, ranked, options, selector)
            if state.num_steps
            else render_request(task.query)
        )
        # What can still be found depends on these only; the order in which they came does not matter.
        canonical: dict[str, JsonValue] = {
            "listed": [*sorted(state.listed)],
            "expanded": [*sorted(state.expanded)],
            "queries": [*sorted(state.queries)],
            "answer": None if state.answer is None else [*sorted(state.answer)],
        }
        instructions = system_prompt(options.search_top_k, options.expand_top_k)
        return self.observe(
            (Message("system", instructions), Message("user", shown)),
            text=result,
            state=canonical,
            tools=() if state.answer is not None else TOOLBOX.specs,
            task=task,
        )
