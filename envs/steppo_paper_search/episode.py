"""The small state of one episode: what was asked, what was listed, and what the last step said."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from pydantic import JsonValue

from steppo_paper_search.library import CallKind, View
from steppo_paper_search.retrieval import query_key

__all__ = ["CallRecord", "Episode"]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One executed call.

    Attributes:
        step: 1 for the first step.
        argument: The query, or the id of the expanded paper.
        num_found: Papers that it brought, listed before or not.
        num_new: Of these, the ones not listed before.
        is_repeat: True when the same call was made before, and so nothing was looked up.
    """

    step: int
    kind: CallKind
    argument: str
    num_found: int = 0
    num_new: int = 0
    is_repeat: bool = False


@dataclass(slots=True)
class Episode:
    """Everything that changes while a task is worked on.

    Attributes:
        listed: Ids of the papers found so far, in the order in which they were found.
        listed_at: The step in which each of them was found.
        calls: Every executed call, in order.
        feedback: What the last step had to say beside its results.
        answer: The papers that the agent stopped with, or None while it has not.
        num_steps: Steps taken.
    """

    listed: list[str] = field(default_factory=list)
    listed_at: list[int] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    feedback: tuple[str, ...] = ()
    answer: tuple[str, ...] | None = None
    num_steps: int = 0

    @property
    def expanded(self) -> tuple[str, ...]:
        """Ids of the papers expanded so far, in order."""
        return tuple(
            call.argument for call in self.calls if call.kind == "expand" and not call.is_repeat
        )

    @property
    def queries(self) -> tuple[str, ...]:
        """The words of the queries made so far, in order."""
        return tuple(
            query_key(call.argument)
            for call in self.calls
            if call.kind == "search" and not call.is_repeat
        )

    @property
    def last_calls(self) -> tuple[CallRecord, ...]:
        """The calls of the last step."""
        return tuple(call for call in self.calls if call.step == self.num_steps)

    @property
    def new(self) -> tuple[str, ...]:
        """The papers found in the last step, in order."""
        return tuple(
            paper_id
            for paper_id, step in zip(self.listed, self.listed_at)
            if step == self.num_steps
        )

    def earlier(self, kind: CallKind, argument: str) -> CallRecord | None:
        """Return the earlier call that asked the same, or None."""
        for call in self.calls:
            if call.kind != kind:
                continue
            same = call.argument == argument
            if same or (kind == "search" and query_key(call.argument) == query_key(argument)):
                return call
        return None

    def search(self, view: View, query: str) -> tuple[str, ...]:
        """Execute a search that was not made before; return the papers it newly lists."""
        return self._add("search", query, view.search(query))

    def expand(self, view: View, paper_id: str) -> tuple[str, ...]:
        """Execute an expansion that was not made before; return the papers it newly lists."""
        return self._add("expand", paper_id, view.expand(paper_id))

    def repeat(self, kind: CallKind, argument: str) -> None:
        """Record a call that was made before."""
        self.calls.append(CallRecord(self.num_steps, kind, argument, is_repeat=True))

    def count(self, kind: CallKind) -> int:
        """Return how many searches or expansions were executed, repeats left out."""
        return sum(call.kind == kind and not call.is_repeat for call in self.calls)

    @property
    def num_repeats(self) -> int:
        """Calls that had been made before."""
        return sum(call.is_repeat for call in self.calls)

    def _add(self, kind: CallKind, argument: str, found: Sequence[str]) -> tuple[str, ...]:
        known = set(self.listed)
        new = tuple(paper_id for paper_id in found if paper_id not in known)
        self.listed.extend(new)
        self.listed_at.extend([self.num_steps] * len(new))
        self.calls.append(CallRecord(self.num_steps, kind, argument, len(found), len(new)))
        return new

    def to_bytes(self, papers: JsonValue) -> bytes:
        """Return the episode as JSON, with what its view of the library needs beside it."""
        saved = {
            "listed": self.listed,
            "listed_at": self.listed_at,
            "calls": [asdict(call) for call in self.calls],
            "feedback": self.feedback,
            "answer": self.answer,
            "num_steps": self.num_steps,
            "papers": papers,
        }
        return json.dumps(saved, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, state: bytes) -> "tuple[Episode, JsonValue]":
        """Return the episode that `to_bytes` wrote, and what stood beside it."""
        saved = json.loads(state)
        episode = cls(
            listed=saved["listed"],
            listed_at=saved["listed_at"],
            calls=[CallRecord(**call) for call in saved["calls"]],
            feedback=tuple(saved["feedback"]),
            answer=None if saved["answer"] is None else tuple(saved["answer"]),
            num_steps=saved["num_steps"],
        )
        return episode, saved["papers"]
