"""Makes the built-in world from a fixed seed, in a fraction of a second and without files."""

from dataclasses import asdict, dataclass
from functools import cache

from steppo_env.keys import digest
from steppo_multihop_qa.retrieval import Passage
from steppo_multihop_qa.world.graph import Graph, make_graph
from steppo_multihop_qa.world.names import Dice
from steppo_multihop_qa.world.passages import make_passages
from steppo_multihop_qa.world.questions import NUM_QUESTIONS, QuestionMaker, WorldQuestion

__all__ = ["World", "make_world"]

SEED = "steppo multihop world 1"
"""Changing it, or anything that the world is made of, makes other tasks: a new environment version."""


@dataclass(frozen=True, slots=True)
class World:
    """Passages, questions about them, and the facts behind both.

    Attributes:
        key: Changes with any passage or question.
    """

    graph: Graph
    passages: tuple[Passage, ...]
    questions: tuple[WorldQuestion, ...]
    key: str


@cache
def make_world() -> World:
    """Return the world; every process makes the same one."""
    graph = make_graph(Dice(f"{SEED}: graph"))
    passages = make_passages(graph, Dice(f"{SEED}: passages"))
    passage_ids = [passages[entity.entity_id].passage_id for entity in graph.entities]
    questions = tuple(
        question
        for split, count in NUM_QUESTIONS.items()
        for question in QuestionMaker(graph, passage_ids, Dice(f"{SEED}: {split}"), split).make(
            count
        )
    )
    in_order = tuple(sorted(passages.values(), key=lambda passage: passage.passage_id))
    key = digest(
        [
            [asdict(passage) for passage in in_order],
            [[item.question_id, item.text, *item.answers] for item in questions],
        ]
    )
    return World(graph, in_order, questions, key)
