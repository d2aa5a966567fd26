"""The world's facts told as passages, one for each entity."""

import re

from steppo_multihop_qa.retrieval import Passage
from steppo_multihop_qa.world.graph import Entity, Graph
from steppo_multihop_qa.world.names import Dice
from steppo_multihop_qa.world.wording import INTRODUCTIONS, PRONOUNS, WORDINGS

__all__ = ["make_passages", "value_text"]

_BEFORE_VOWEL = re.compile(r"\ba (?=[aeiou])")
MAX_SENTENCES = 4
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def make_passages(graph: Graph, dice: Dice) -> dict[int, Passage]:
    """Return the passage of each entity, by entity; its id says nothing about what it is."""
    numbers = dice.shuffled(range(len(graph.entities)))
    return {
        entity.entity_id: Passage(f"w{number:04d}", entity.name, _text(graph, entity, dice))
        for entity, number in zip(graph.entities, numbers)
    }


def value_text(graph: Graph, value: int | str) -> str:
    """Return a value as it stands in a passage: a name, or a date such as 3 May 1921."""
    if isinstance(value, int):
        return graph.entities[value].name
    if len(value) == 10 and value[4] == value[7] == "-":
        year, month, day = value.split("-")
        return f"{int(day)} {MONTHS[int(month) - 1]} {year}"
    return value


def _text(graph: Graph, entity: Entity, dice: Dice) -> str:
    introduction = dice.pick(INTRODUCTIONS[entity.kind]).format(n=entity.name, t=entity.trade)
    pronoun = dice.pick(PRONOUNS.get(entity.kind, ("It",)))
    sentences: list[str] = []
    for relation, value in dice.shuffled(list(graph.relations(entity.entity_id).items())):
        template = dice.pick(WORDINGS[entity.kind, relation].sentences)
        sentence = template.format(s=pronoun, v=value_text(graph, value))
        if len(sentences) == MAX_SENTENCES - 1:
            sentences[-1] = _join(sentences[-1], sentence, pronoun, template.startswith("{v}"))
        else:
            sentences.append(sentence)
    return " ".join([_BEFORE_VOWEL.sub("an ", introduction), *sentences])


def _join(first: str, second: str, pronoun: str, is_name_first: bool) -> str:
    """Return two sentences as one."""
    start = f"{pronoun} "
    if first.startswith(start) and second.startswith(start) and " and " not in first:
        return f"{first[:-1]} and {second.removeprefix(start)}"
    return f"{first[:-1]}; {second if is_name_first else second[0].lower() + second[1:]}"
