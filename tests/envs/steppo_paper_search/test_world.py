"""The built-in library."""

import time
from collections import Counter

from steppo_paper_search.graph import PaperGraph
from steppo_paper_search.world import generate_world

WORLD = generate_world()
GRAPH = PaperGraph(WORLD.papers, WORLD.references)
PAPERS = {paper.paper_id: paper for paper in WORLD.papers}


def test_it_is_the_same_every_time() -> None:
    assert generate_world() == WORLD
    # The tasks of a version never change: a new number here wants a new seed constant or a new id.
    assert WORLD.version == "0364c1d14e0447eeee2d7166c9e5759b"


def test_it_is_made_in_under_a_second() -> None:
    start = time.process_time()
    generate_world()
    assert time.process_time() - start < 1.0


def test_it_has_the_promised_sizes() -> None:
    assert len(WORLD.papers) == 2520
    assert Counter(query.split for query in WORLD.queries) == {
        "train": 360,
        "dev": 120,
        "test": 120,
    }
    assert set(Counter((query.split, query.query_set) for query in WORLD.queries).values()) == {
        90,
        30,
    }


def test_no_gold_paper_serves_two_splits() -> None:
    gold = {
        split: {
            paper_id
            for query in WORLD.queries
            if query.split == split
            for paper_id in query.gold_ids
        }
        for split in ("train", "dev", "test")
    }
    assert not gold["train"] & gold["dev"]
    assert not gold["train"] & gold["test"]
    assert not gold["dev"] & gold["test"]


def test_papers_cite_the_past_and_only_papers_of_the_library() -> None:
    assert GRAPH.num_dangling == 0
    for paper_id, cited in WORLD.references.items():
        assert paper_id not in cited
        assert len(set(cited)) == len(cited)
        assert all((PAPERS[other].year or 0) <= (PAPERS[paper_id].year or 0) for other in cited)


def test_titles_and_ids_name_one_paper() -> None:
    assert len(PAPERS) == len(WORLD.papers)
    assert len({paper.title for paper in WORLD.papers}) == len(WORLD.papers)


def test_gold_papers_are_no_younger_than_their_request() -> None:
    for query in WORLD.queries:
        assert query.year is not None
        assert all((PAPERS[paper_id].year or 0) <= query.year for paper_id in query.gold_ids)


def test_follow_ups_are_exactly_the_papers_that_cite_the_named_one() -> None:
    for query in WORLD.queries:
        if query.query_set == "follow_ups":
            (title,) = query.query.split('"')[1::2]
            (named,) = [paper for paper in WORLD.papers if paper.title == title]
            citing = {name for name, cited in WORLD.references.items() if named.paper_id in cited}
            assert set(query.gold_ids) == citing


def test_the_methods_introduction_leads_to_every_answer() -> None:
    """Some answers never name the method; all of them cite the paper that introduced it."""
    unnamed = 0
    for query in WORLD.queries:
        if query.query_set != "method_and_task":
            continue
        shared = set.intersection(*(set(WORLD.references[name]) for name in query.gold_ids))
        introductions = [
            PAPERS[name].title.split(":")[0].lower() for name in shared if ":" in PAPERS[name].title
        ]
        (method,) = [name for name in introductions if name in query.query.lower()]
        unnamed += sum(method not in PAPERS[name].text.lower() for name in query.gold_ids)
    assert unnamed > 100


def test_every_template_is_filled() -> None:
    texts = [paper.text for paper in WORLD.papers] + [query.query for query in WORLD.queries]
    assert not any("{" in text or "}" in text or "  " in text for text in texts)
