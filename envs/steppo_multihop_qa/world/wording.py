"""How each relation is told in a passage, named inside a question, and asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["INTRODUCTIONS", "MENTIONS", "PRONOUNS", "WORDINGS", "Wording"]


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of one relation of one kind of entity.

    Attributes:
        sentences: Ways to tell it; `{s}` is the subject or a pronoun, `{v}` the value.
        questions: Ways to ask for it; `{x}` is the subject.
        phrase: The value as a part of a longer question; empty when no chain goes on from it.
    """

    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    phrase: str = ""


INTRODUCTIONS: Mapping[str, tuple[str, ...]] = {
    "country": ("{n} is a sovereign country.", "{n} is a republic.", "{n} is a former kingdom."),
    "river": (
        "The {n} is one of the longer rivers of its region.",
        "The {n} is a navigable river.",
    ),
    "city": ("{n} is a city known for its old market.", "{n} is a city.", "{n} is a quiet city."),
    "university": ("{n} is an institution of higher education.", "{n} is a public university."),
    "person": ("{n} was a noted {t}.", "{n} is remembered as a {t}.", "{n} worked as a {t}."),
    "company": ("{n} is a {t}.", "{n} is a privately held {t}.", "{n} is a long-established {t}."),
    "book": ("{n} is a novel.", "{n} is a novel in three parts.", "{n} is an acclaimed novel."),
    "film": ("{n} is a feature film.", "{n} is a drama film.", "{n} is a film in colour."),
    "band": ("{n} are a rock band.", "{n} are a folk band.", "{n} are a touring band."),
    "album": ("{n} is a studio album.", "{n} is a double album.", "{n} is a concept album."),
    "festival": ("{n} is an annual event.", "{n} is a gathering of the film trade."),
}
"""First sentences by kind; `{n}` is the name, `{t}` the trade."""

PRONOUNS: Mapping[str, tuple[str, ...]] = {
    "person": ("He", "She"),
    "band": ("They",),
}
"""What later sentences call the subject; "It" for the kinds left out."""

MENTIONS: Mapping[str, str] = {
    "book": "the novel {n}",
    "film": "the film {n}",
    "band": "the band {n}",
    "album": "the album {n}",
    "river": "the {n}",
}
"""How a question first mentions an entity; the bare name for the kinds left out."""

WORDINGS: Mapping[tuple[str, str], Wording] = {
    ("country", "capital"): Wording(
        ("Its capital is {v}.", "The seat of its government is the capital, {v}."),
        ("What is the capital of {x}?", "Which city is the capital of {x}?"),
        "the capital of {x}",
    ),
    ("country", "currency"): Wording(
        ("The currency is the {v}.", "Prices there are given in the {v}, the national currency."),
        ("What is the currency of {x}?", "Which currency is used in {x}?"),
    ),
    ("country", "language"): Wording(
        ("The official language is {v}.", "Most of its people speak {v}, the official language."),
        ("What is the official language of {x}?", "Which language is official in {x}?"),
    ),
    ("river", "length"): Wording(
        ("{s} is {v} long.", "{s} has a length of {v}.", "{s} runs for {v}."),
        ("How long is {x}?", "What is the length of {x}?"),
    ),
    ("river", "sea"): Wording(
        ("{s} empties into the {v}.", "{s} flows into the {v}.", "Its mouth is on the {v}."),
        ("Into which sea does {x} flow?", "Which sea does {x} empty into?"),
    ),
    ("city", "country"): Wording(
        ("{s} lies in {v}.", "{s} is situated in the country of {v}.", "{s} belongs to {v}."),
        ("In which country is {x}?", "Which country does {x} belong to?"),
        "the country of {x}",
    ),
    ("city", "river"): Wording(
        ("{s} stands on the {v}.", "The {v} flows through it.", "{s} grew up along the {v}."),
        ("Which river flows through {x}?", "On which river does {x} stand?"),
        "the river that flows through {x}",
    ),
    ("city", "founded"): Wording(
        ("{s} was founded in {v}.", "Its charter dates from its foundation in {v}."),
        ("In what year was {x} founded?", "When was {x} founded?"),
    ),
    ("university", "seat"): Wording(
        ("Its campus is in {v}.", "{s} is located in {v}.", "{s} has its seat in {v}."),
        ("In which city is {x} located?", "Which city is home to {x}?"),
        "the home city of {x}",
    ),
    ("university", "founded"): Wording(
        ("{s} was founded in {v}.", "{s} opened its doors in {v}."),
        ("In what year was {x} founded?", "When was {x} founded?"),
    ),
    ("person", "birth_date"): Wording(
        ("{s} was born on {v}.", "{s} came into the world on {v}."),
        ("When was {x} born?", "What is the date of birth of {x}?"),
    ),
    ("person", "birthplace"): Wording(
        ("{s} was a native of {v}.", "{s} was born in {v}.", "{v} was the place of birth."),
        ("Where was {x} born?", "In which city was {x} born?"),
        "the birthplace of {x}",
    ),
    ("person", "university"): Wording(
        ("{s} studied at {v}.", "{s} was a graduate of {v}."),
        ("Where did {x} study?", "Which university did {x} attend?"),
        "the university attended by {x}",
    ),
    ("person", "spouse"): Wording(
        ("{s} was married to {v}.", "{s} shared a long marriage with {v}."),
        ("Who was the spouse of {x}?", "To whom was {x} married?"),
        "the spouse of {x}",
    ),
    ("company", "founder"): Wording(
        ("{s} was founded by {v}.", "Its founder was {v}."),
        ("Who founded {x}?", "Who was the founder of {x}?"),
        "the founder of {x}",
    ),
    ("company", "home"): Wording(
        ("{s} has its headquarters in {v}.", "{s} is run from an office in {v}."),
        ("In which city does {x} have its headquarters?", "Where is {x} based?"),
        "the home city of {x}",
    ),
    ("company", "founded"): Wording(
        ("Business began in {v}.", "{s} dates back to its foundation in {v}."),
        ("In what year was {x} founded?", "When was {x} founded?"),
    ),
    ("book", "author"): Wording(
        ("{s} was written by {v}.", "Its author is {v}.", "{s} is the work of {v}."),
        ("Who wrote {x}?", "Who is the author of {x}?"),
        "the author of {x}",
    ),
    ("book", "publisher"): Wording(
        ("{s} was brought out by {v}.", "Its first publisher was {v}."),
        ("Which company published {x}?", "Who was the publisher of {x}?"),
        "the publisher of {x}",
    ),
    ("book", "published"): Wording(
        ("{s} was first published in {v}.", "The first edition appeared in {v}."),
        ("In what year was {x} published?", "When was {x} first published?"),
    ),
    ("film", "director"): Wording(
        ("{s} was directed by {v}.", "Its director was {v}.", "{v} directed it."),
        ("Who directed {x}?", "Who was the director of {x}?"),
        "the director of {x}",
    ),
    ("film", "star"): Wording(
        ("{v} plays the leading role.", "{s} stars {v}.", "The lead is played by {v}."),
        ("Who plays the leading role in {x}?", "Who stars in {x}?"),
        "the star of {x}",
    ),
    ("film", "book"): Wording(
        ("{s} is based on the novel {v}.", "The script follows the novel {v}."),
        ("On which novel is {x} based?", "Which novel was adapted into {x}?"),
        "the novel that was adapted into {x}",
    ),
    ("film", "studio"): Wording(
        ("{s} was produced by {v}.", "{v} was the studio behind it."),
        ("Which company produced {x}?", "Which studio made {x}?"),
        "the studio that produced {x}",
    ),
    ("film", "released"): Wording(
        ("{s} was released in {v}.", "{s} reached the cinemas in {v}."),
        ("In what year was {x} released?", "When did {x} come out?"),
    ),
    ("band", "singer"): Wording(
        ("Their lead singer is {v}.", "{v} is their lead singer."),
        ("Who is the lead singer of {x}?", "Who sings lead in {x}?"),
        "the lead singer of {x}",
    ),
    ("band", "origin"): Wording(
        ("{s} come from {v}.", "Their home town is {v}."),
        ("In which city was {x} formed?", "Which city does {x} come from?"),
        "the home city of {x}",
    ),
    ("band", "formed"): Wording(
        ("{s} first played together in {v}.", "{s} were formed in {v}."),
        ("In what year was {x} formed?", "When was {x} formed?"),
    ),
    ("album", "band"): Wording(
        ("{s} was recorded by {v}.", "{s} is by {v}."),
        ("Which band recorded {x}?", "By which band is {x}?"),
        "the band that recorded {x}",
    ),
    ("album", "producer"): Wording(
        ("{s} was produced by {v}.", "Its producer was {v}."),
        ("Who produced {x}?", "Who was the producer of {x}?"),
        "the producer of {x}",
    ),
    ("album", "released"): Wording(
        ("{s} was released in {v}.", "{s} came out in {v}."),
        ("In what year was {x} released?", "When did {x} come out?"),
    ),
    ("festival", "place"): Wording(
        ("{s} is held in {v}.", "Its home is {v}."),
        ("Where is {x} held?", "Which city hosts {x}?"),
    ),
    ("festival", "since"): Wording(
        ("{s} was first held in {v}.", "The first edition took place in {v}."),
        ("In what year was {x} first held?", "When was {x} first held?"),
    ),
}
"""By kind of the subject and relation, in the order in which a passage may tell them."""
