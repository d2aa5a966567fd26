"""Questions about the world, each with the chain of facts that settles it."""

from collections.abc import Sequence
from dataclasses import dataclass

from steppo_env.metrics import normalize_answer
from steppo_multihop_qa.world.graph import Graph
from steppo_multihop_qa.world.names import Dice
from steppo_multihop_qa.world.passages import value_text
from steppo_multihop_qa.world.wording import MENTIONS, WORDINGS, Wording

__all__ = ["NUM_QUESTIONS", "Derivation", "QuestionMaker", "WorldQuestion"]

NUM_QUESTIONS = {"train": 1200, "dev": 250, "test": 250}
"""Number of questions by split."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """How the graph settles a question.

    Attributes:
        rule: "value": what the path from the start leads to. "same": whether the paths from both
            starts lead to one value, yes or no. "first" or "last": the start whose path leads to
            the smaller or larger value.
        starts: One entity for "value", else two.
        path: Relations to follow from each start.
    """

    rule: str
    starts: tuple[int, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorldQuestion:
    """A question with its solution.

    Attributes:
        answers: The first is the one to give.
        supporting: The entities whose passages settle it, in the order of the chain.
        supporting_ids: The ids of those passages.
    """

    question_id: str
    split: str
    type: str
    hops: int
    text: str
    answers: tuple[str, ...]
    supporting: tuple[int, ...]
    supporting_ids: tuple[str, ...]
    derivation: Derivation


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A form of question about two entities of one kind."""

    kind: str
    path: tuple[str, ...]
    rule: str
    texts: tuple[str, ...]


_COMPARISONS = (
    _Comparison("film", ("released",), "first", ("Which film was released first, {a} or {b}?",)),
    _Comparison("film", ("released",), "last", ("Which film came out later, {a} or {b}?",)),
    _Comparison("book", ("published",), "first", ("Which novel is older, {a} or {b}?",)),
    _Comparison("album", ("released",), "first", ("Which album came out first, {a} or {b}?",)),
    _Comparison("band", ("formed",), "first", ("Which band was formed first, {a} or {b}?",)),
    _Comparison("company", ("founded",), "first", ("Which company is older, {a} or {b}?",)),
    _Comparison("person", ("birth_date",), "first", ("Who was born first, {a} or {b}?",)),
    _Comparison("person", ("birth_date",), "last", ("Who is younger, {a} or {b}?",)),
    _Comparison("person", ("birthplace",), "same", ("Were {a} and {b} born in the same city?",)),
    _Comparison("person", ("university",), "same", ("Did {a} and {b} study at the same place?",)),
    _Comparison("film", ("studio",), "same", ("Did one studio produce both films, {a} and {b}?",)),
    _Comparison("city", ("country",), "same", ("Are {a} and {b} in the same country?",)),
    _Comparison("city", ("river",), "same", ("Do {a} and {b} stand on the same river?",)),
    _Comparison("band", ("origin",), "same", ("Do the bands {a} and {b} share a home town?",)),
)
_BRIDGE_COMPARISONS = (
    _Comparison(
        "film",
        ("director", "birth_date"),
        "first",
        (
            "Which film has the director who was born first, {a} or {b}?",
            "Of the films {a} and {b}, which one has the older director?",
        ),
    ),
    _Comparison(
        "film",
        ("star", "birth_date"),
        "last",
        ("Which film has the younger star, {a} or {b}?",),
    ),
    _Comparison(
        "book",
        ("author", "birth_date"),
        "last",
        ("Which novel has the author who was born later, {a} or {b}?",),
    ),
    _Comparison(
        "album",
        ("band", "formed"),
        "first",
        ("Which album is by the band that was formed first, {a} or {b}?",),
    ),
    _Comparison(
        "film",
        ("director", "birthplace"),
        "same",
        ("Were the directors of the films {a} and {b} born in the same city?",),
    ),
    _Comparison(
        "book",
        ("publisher", "home"),
        "same",
        ("Are the publishers of the novels {a} and {b} based in the same city?",),
    ),
    _Comparison(
        "person",
        ("birthplace", "country"),
        "same",
        ("Were {a} and {b} born in the same country?",),
    ),
)
_STARTS = ("film", "book", "album", "band", "company", "person", "university")
# Of twenty questions in a row: nine of 2 hops, two and two comparisons, and so on.
_CYCLE: tuple[tuple[str, int], ...] = (
    ("compositional", 2),
    ("compositional", 3),
    ("comparison", 2),
    ("compositional", 2),
    ("bridge_comparison", 4),
    ("compositional", 4),
    ("compositional", 3),
    ("comparison", 2),
    ("compositional", 2),
    ("compositional", 4),
)


class QuestionMaker:
    """Makes the questions of one split."""

    def __init__(self, graph: Graph, passage_ids: Sequence[str], dice: Dice, split: str) -> None:
        self._graph, self._passage_ids, self._dice = graph, passage_ids, dice
        self._split = split
        self._by_kind: dict[str, list[int]] = {}
        for entity in graph.entities:
            if entity.split == split:
                self._by_kind.setdefault(entity.kind, []).append(entity.entity_id)
        self._texts: set[str] = set()
        self._num_same = 0

    def make(self, count: int) -> list[WorldQuestion]:
        """Return this many questions, no two with the same text."""
        questions: list[WorldQuestion] = []
        while len(questions) < count:
            type_, hops = _CYCLE[len(questions) % len(_CYCLE)]
            question = (
                self._compositional(len(questions), hops)
                if type_ == "compositional"
                else self._comparison(len(questions), type_)
            )
            if question is not None and question.text not in self._texts:
                self._texts.add(question.text)
                self._num_same += question.derivation.rule == "same"
                questions.append(question)
        return questions

    def _compositional(self, number: int, hops: int) -> WorldQuestion | None:
        """Walk at random along `hops` facts; None when the walk does not make a good question."""
        start = self._dice.pick(self._by_kind[self._dice.pick(_STARTS)])
        chain, path, phrase = [start], list[str](), self._mention(start)
        for _ in range(hops - 1):
            links = [
                (relation, value)
                for relation, value in self._graph.relations(chain[-1]).items()
                if isinstance(value, int) and value not in chain
            ]
            if not links:
                return None
            relation, entity = self._dice.pick(links)
            phrase = self._wording(chain[-1], relation).phrase.format(x=phrase)
            path.append(relation)
            chain.append(entity)
        facts = list(self._graph.relations(chain[-1]).items())
        relation, value = self._dice.pick(facts)
        text = self._dice.pick(self._wording(chain[-1], relation).questions).format(x=phrase)
        answers = _answers(value_text(self._graph, value))
        # A chain that comes back to where it was would give its own answer away.
        if value in chain or _mentions(text, answers[0]):
            return None
        derivation = Derivation("value", (start,), (*path, relation))
        return self._question(number, "compositional", text, answers, chain, derivation)

    def _comparison(self, number: int, type_: str) -> WorldQuestion | None:
        forms = _COMPARISONS if type_ == "comparison" else _BRIDGE_COMPARISONS
        form = self._dice.pick(forms)
        a = self._dice.pick(self._by_kind[form.kind])
        # Two random entities seldom agree, so the others that do are looked for.
        is_yes = form.rule == "same" and self._num_same % 2 == 0
        others = self._by_kind[form.kind]
        if is_yes:
            ours = self._follow(a, form.path)[-1:]
            others = [b for b in others if b != a and self._follow(b, form.path)[-1:] == ours]
        b = self._dice.pick(others or [a])
        chains = [self._follow(start, form.path) for start in (a, b)]
        if a == b or not all(chains):
            return None
        (*inner_a, value_a), (*inner_b, value_b) = chains
        supporting = [item for pair in zip([a, *inner_a], [b, *inner_b]) for item in pair]
        if len(set(supporting)) < len(supporting):
            return None
        if form.rule == "same":
            if (value_a == value_b) != is_yes:
                return None
            answers = ("yes" if is_yes else "no",)
        else:
            # Years, because two dates within one year make a question of days.
            year_a, year_b = str(value_a)[:4], str(value_b)[:4]
            if year_a == year_b:
                return None
            winner = a if (year_a < year_b) == (form.rule == "first") else b
            answers = (self._graph.entities[winner].name,)
        names = (self._graph.entities[item].name for item in (a, b))
        text = self._dice.pick(form.texts).format(**dict(zip("ab", names)))
        derivation = Derivation(form.rule, (a, b), form.path)
        return self._question(number, type_, text, answers, supporting, derivation)

    def _follow(self, start: int, path: Sequence[str]) -> list[int | str]:
        """Return what each relation of a path leads to; empty when one is not told."""
        values: list[int | str] = []
        subject: int | str = start
        for relation in path:
            value = self._graph.value(subject, relation) if isinstance(subject, int) else None
            if value is None:
                return []
            values.append(value)
            subject = value
        return values

    def _question(
        self,
        number: int,
        type_: str,
        text: str,
        answers: tuple[str, ...],
        supporting: Sequence[int | str],
        derivation: Derivation,
    ) -> WorldQuestion:
        entities = tuple(item for item in supporting if isinstance(item, int))
        return WorldQuestion(
            question_id=f"world-{self._split}-{number:04d}",
            split=self._split,
            type=type_,
            hops=len(entities),
            text=text[0].upper() + text[1:],
            answers=answers,
            supporting=entities,
            supporting_ids=tuple(self._passage_ids[item] for item in entities),
            derivation=derivation,
        )

    def _wording(self, subject: int, relation: str) -> Wording:
        return WORDINGS[self._graph.entities[subject].kind, relation]

    def _mention(self, entity: int) -> str:
        found = self._graph.entities[entity]
        return MENTIONS.get(found.kind, "{n}").format(n=found.name)


def _answers(text: str) -> tuple[str, ...]:
    """Return the other ways to write an answer after it."""
    words = text.split()
    if len(words) == 3 and words[0].isdigit() and words[2].isdigit():
        return (text, f"{words[1]} {words[0]}, {words[2]}")
    if len(words) == 2 and words[0].isdigit():
        return (text, f"{words[0]} km", words[0])
    return (text,)


def _mentions(text: str, answer: str) -> bool:
    return f" {normalize_answer(answer)} " in f" {normalize_answer(text)} "
