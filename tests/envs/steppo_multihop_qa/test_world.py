"""The built-in world: its questions have one answer, told in the passages and nowhere else."""

import re
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

from steppo_env.metrics import normalize_answer
from steppo_multihop_qa.retrieval import words_of
from steppo_multihop_qa.world import WorldQuestion, make_world
from steppo_multihop_qa.world.graph import SPLIT_SIZES
from steppo_multihop_qa.world.names import Dice
from steppo_multihop_qa.world.passages import value_text
from steppo_multihop_qa.world.wording import WORDINGS

WORLD = make_world()
PASSAGES = {passage.passage_id: passage for passage in WORLD.passages}
TRIPLES = [(subject, name, value) for (subject, name), value in WORLD.graph.facts.items()]
BY_RELATION: dict[str, list[tuple[int, int | str]]] = {}
for _subject, _name, _value in TRIPLES:
    BY_RELATION.setdefault(_name, []).append((_subject, _value))


def reachable(start: int, path: tuple[str, ...]) -> set[int | str]:
    """Return all that a path leads to, by a scan of all facts at each link."""
    found: set[int | str] = {start}
    for relation in path:
        found = {value for subject, value in BY_RELATION[relation] if subject in found}
    return found


def is_capital(city: int, country: int | str) -> bool:
    return (country, city) in BY_RELATION["capital"]


def brute_force(question: WorldQuestion) -> set[str]:
    """Return every answer that the facts allow."""
    derivation = question.derivation
    ends = [reachable(start, derivation.path) for start in derivation.starts]
    if derivation.rule == "value":
        return {value_text(WORLD.graph, value) for value in ends[0]}
    ((a,), (b,)) = ends
    if derivation.rule == "same":
        return {"yes" if a == b else "no"}
    best = min if derivation.rule == "first" else max
    names = [WORLD.graph.entities[start].name for start in derivation.starts]
    return {name for name, end in zip(names, (a, b)) if end == best(str(a), str(b))}


def test_each_question_has_one_answer_by_brute_force() -> None:
    for question in WORLD.questions:
        assert brute_force(question) == {question.answers[0]}, question.text


def test_each_link_is_told_in_the_passage_of_its_subject() -> None:
    for question in WORLD.questions:
        told = {
            entity: PASSAGES[item]
            for entity, item in zip(question.supporting, question.supporting_ids)
        }
        for start in question.derivation.starts:
            subject: int | str = start
            for relation in question.derivation.path:
                assert isinstance(subject, int)
                value = WORLD.graph.facts[subject, relation]
                assert value_text(WORLD.graph, value) in told[subject].text
                subject = value
        assert len(set(question.supporting_ids)) == question.hops


def test_every_fact_is_told_in_one_passage_only() -> None:
    """Without the passage of its subject a link cannot be read off from any other."""
    texts = {entity.name: "" for entity in WORLD.graph.entities}
    for passage in WORLD.passages:
        texts[passage.title] = passage.text
    for subject, relation, value in TRIPLES:
        # A capital names its country, but not as its capital.
        if isinstance(value, int) and relation != "capital" and not is_capital(subject, value):
            assert WORLD.graph.entities[subject].name not in texts[WORLD.graph.entities[value].name]


def test_the_text_of_a_question_does_not_give_its_answer_away() -> None:
    for question in WORLD.questions:
        if question.type == "compositional":
            shown = f" {normalize_answer(question.text)} "
            assert not any(f" {normalize_answer(answer)} " in shown for answer in question.answers)
            inner = [WORLD.graph.entities[item].name for item in question.supporting[1:]]
            assert not any(f" {normalize_answer(name)} " in shown for name in inner), question.text


def test_yes_and_no_and_both_places_of_a_comparison_are_balanced() -> None:
    for split in ("train", "dev", "test"):
        closed, places = Counter[str](), Counter[int]()
        for question in WORLD.questions:
            if question.split == split and question.derivation.rule == "same":
                closed[question.answers[0]] += 1
            elif question.split == split and question.derivation.rule != "value":
                first = WORLD.graph.entities[question.derivation.starts[0]].name
                places[int(question.answers[0] == first)] += 1
        assert abs(closed["yes"] - closed["no"]) <= 1
        assert 0.4 < places[0] / places.total() < 0.6


def test_splits_share_no_entity_and_no_fact_crosses_them() -> None:
    entities = WORLD.graph.entities
    for subject, _, value in TRIPLES:
        if isinstance(value, int):
            assert entities[subject].split == entities[value].split
    for question in WORLD.questions:
        assert {entities[item].split for item in question.supporting} == {question.split}


def test_the_splits_are_large_enough_and_of_every_kind() -> None:
    counts = Counter(question.split for question in WORLD.questions)
    assert counts["train"] >= 1000
    assert counts["dev"] >= 200
    assert counts["test"] >= 200
    for split in counts:
        hops = Counter((item.type, item.hops) for item in WORLD.questions if item.split == split)
        assert set(hops) == {
            ("compositional", 2),
            ("compositional", 3),
            ("compositional", 4),
            ("comparison", 2),
            ("bridge_comparison", 4),
        }
    assert 1500 <= len(WORLD.passages) <= 3000
    assert len(WORLD.passages) == sum(sum(sizes.values()) for sizes in SPLIT_SIZES.values())


def test_names_do_not_collide_as_words_or_as_answers() -> None:
    titles = [passage.title for passage in WORLD.passages]
    assert len({tuple(words_of(title)) for title in titles}) == len(titles)
    assert len({normalize_answer(title) for title in titles}) == len(titles)
    assert len({question.text for question in WORLD.questions}) == len(WORLD.questions)
    told = {
        word
        for wording in WORDINGS.values()
        for text in wording.sentences
        for word in words_of(text)
    }
    invented = {
        word
        for entity in WORLD.graph.entities
        if entity.kind in ("city", "country", "person")
        for word in words_of(entity.name)
    }
    assert not told & invented


def test_passages_are_short_natural_texts_in_many_forms() -> None:
    for passage in WORLD.passages:
        num_sentences = len(re.findall(r"\.(?: |$)", passage.text))
        assert 2 <= num_sentences <= 4, passage.text
        assert passage.title in passage.text
        assert "{" not in passage.text
        assert not re.search(r"\b(a [aeiou]|  |\.\.)", passage.text), passage.text
    films = [PASSAGES[item] for question in WORLD.questions for item in question.supporting_ids]
    forms = {re.sub(r"[A-Z]\w+( [A-Z]\w+)*|\d+", "#", passage.text) for passage in films}
    assert len(forms) > 200


def test_nobody_works_before_birth_or_long_after() -> None:
    facts = WORLD.graph.facts

    def year(subject: int | str, *relations: str) -> int:
        return next(
            int(str(facts[int(subject), name])[:4])
            for name in relations
            if (subject, name) in facts
        )

    ages = [
        year(subject, "released", "published", "founded", "formed") - year(value, "birth_date")
        for name in ("director", "star", "author", "founder", "singer", "producer")
        for subject, value in BY_RELATION[name]
    ]
    assert 18 <= min(ages) <= max(ages) <= 80
    for film, book in BY_RELATION["book"]:
        assert year(book, "published") < year(film, "released")
    for album, band in BY_RELATION["band"]:
        assert year(band, "formed") < year(album, "released")
    for country, capital in BY_RELATION["capital"]:
        assert facts[int(capital), "country"] == country


def test_it_is_made_in_less_than_a_second_and_alike_in_every_process() -> None:
    started = time.process_time()
    again = make_world.__wrapped__()
    assert time.process_time() - started < 1.0
    assert again.key == WORLD.key
    code = "from steppo_multihop_qa.world import make_world; print(make_world().key)"
    for hash_seed in ("0", "4321"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == WORLD.key


def test_the_world_of_version_0_never_changes() -> None:
    assert WORLD.key == "63f330de763110da767d9af2b7a1b255"
    assert WORLD.questions[0].text == "In which country is the home city of Stehond Pictures?"


def test_dice_are_fair_and_repeatable() -> None:
    rolls = [Dice("a").below(6) for _ in range(3)]
    assert len(set(rolls)) == 1
    dice = Dice("b")
    counts = Counter(dice.between(1, 6) for _ in range(6000))
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert all(850 < count < 1150 for count in counts.values())
    shuffles = Counter(tuple(dice.shuffled("abc")) for _ in range(6000))
    assert len(shuffles) == 6
    assert all(850 < count < 1150 for count in shuffles.values())
    assert all(a <= b for a, b in pairwise(sorted(rolls)))
