"""The library behind an API, over a small server that speaks like Semantic Scholar.

It serves the five papers of the pack under ids of its own, and says some things of its own accord.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from steppo_env.env import AnyEnv
from steppo_env.errors import EnvError, InvalidInput, TransportError
from steppo_env.mdp import Action, ToolCall
from steppo_env.registry import make
from steppo_env.testing import EnvContract, expert_action, play

Reply = tuple[int, Mapping[str, str], bytes]


class FakeScholar:
    """The API over the papers of a pack.

    Attributes:
        asked: Path and query of each request, in order.
        keys: The x-api-key of each request, or None.
        script: Answers given instead, one a request, until there are none left.
        arxiv: arXiv ids by the ids of the pack.
    """

    def __init__(self, folder: Path) -> None:
        lines = (folder / "papers.jsonl").read_text(encoding="utf-8").splitlines()
        self.papers: dict[str, Any] = {
            f"s2-{paper['id']}": paper for paper in map(json.loads, lines)
        }
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.keys: list[str | None] = []
        self.script: list[Reply | Callable[[], Reply]] = []
        self.arxiv: dict[str, str] = {}
        self.is_dated = True
        self.url = ""

    def answer(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        self.asked.append((path, query))
        self.keys.append(headers.get("x-api-key"))
        if self.script:
            scripted = self.script.pop(0)
            return scripted() if callable(scripted) else scripted
        parts = path.strip("/").split("/")[2:]
        if parts[1] == "search":
            return ok(self.search(query))
        if parts[1] not in self.papers:
            return 404, {}, b'{"error": "Paper not found"}'
        if len(parts) == 2:
            return ok(self.record(parts[1]))
        return ok(self.page(parts[1], parts[2], query))

    def record(self, source_id: str) -> dict[str, Any]:
        paper = self.papers[source_id]
        external: dict[str, object] = {"CorpusId": 7}
        if paper["id"] in self.arxiv:
            external |= {"ArXiv": self.arxiv[paper["id"]]}
        shown = {name: paper[name] for name in ("title", "abstract", "year")}
        return {"paperId": source_id, "externalIds": external, **shown}

    def search(self, query: Mapping[str, str]) -> dict[str, Any]:
        words = set(re.findall("[a-z]+", query["query"].lower()))
        latest = int(query.get("year", "-9999").removeprefix("-")) if self.is_dated else 9999
        counts = {
            name: len(words & set(re.findall("[a-z]+", f"{p['title']} {p['abstract']}".lower())))
            for name, p in self.papers.items()
            if p["year"] <= latest
        }
        best = sorted((name for name in counts if counts[name]), key=lambda n: (-counts[n], n))
        if not best:
            return {"total": 0, "offset": 0}
        return {"total": len(best), "data": [*map(self.record, best)][: int(query["limit"])]}

    def page(self, source_id: str, direction: str, query: Mapping[str, str]) -> dict[str, Any]:
        own = self.papers[source_id]["id"]
        if direction == "references":
            cited = self.papers[source_id]["references"]
            found = [f"s2-{name}" for name in cited if f"s2-{name}" in self.papers]
            edges = [{"citedPaper": self.record(name)} for name in found]
            edges.insert(0, {"citedPaper": {"paperId": None, "title": "Known by name only"}})
        else:
            found = [name for name, paper in self.papers.items() if own in paper["references"]]
            # The youngest first, as the real one does.
            edges = [{"citingPaper": self.record(name)} for name in reversed(found)]
        start, size = int(query["offset"]), min(int(query["limit"]), self.page_size)
        more = {"next": start + size} if start + size < len(edges) else {}
        return {"offset": start, "data": edges[start : start + size], **more}

    page_size = 1000


def ok(document: object) -> Reply:
    return 200, {"content-type": "application/json"}, json.dumps(document).encode()


@pytest.fixture
def scholar(pack: Path, serve_http: Callable[..., str]) -> FakeScholar:
    fake = FakeScholar(pack)
    fake.url = serve_http(fake.answer) + "/graph/v1"
    return fake


def start(scholar: FakeScholar, pack: Path, task_id: str = "q-sails", **options: object) -> AnyEnv:
    settings = {"data": pack, "api_url": scholar.url, "queries": "all", "attempts": 1, **options}
    env = make("steppo/PaperSearch-v0", **settings)
    env.start(task_id, 0)
    return env


def search(query: str) -> str:
    return _call("search", query=query)


def expand(paper_id: str) -> str:
    return _call("expand", paper_id=paper_id)


def _call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def listed(env: AnyEnv) -> list[str]:
    state: Any = json.loads(env.save_state() or b"")
    return list(state["listed"])


def test_papers_of_the_pack_come_under_its_ids(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    outcome = env.advance(search("lunar") + expand("c"))
    assert listed(env) == ["c", "a", "b", "d"]
    assert outcome.reward == pytest.approx(1.0)
    assert outcome.info["success"] is True
    assert "[a] Solar sails (2000, new)" in outcome.observation.messages[1].content


def test_requests_are_of_the_published_form(scholar: FakeScholar, pack: Path) -> None:
    start(scholar, pack, search_top_k=4, expand_top_k=7).advance(
        search(" solar\nsails ") + expand("a")
    )
    fields = "title,abstract,year,externalIds"
    path = "/graph/v1/paper"
    # The request's own id is hidden, so one paper more is asked for.
    assert scholar.asked == [
        (
            f"{path}/search",
            {"query": "solar sails", "limit": "5", "fields": fields, "year": "-2015"},
        ),
        (f"{path}/s2-a/references", {"fields": fields, "limit": "1000", "offset": "0"}),
        (f"{path}/s2-a/citations", {"fields": fields, "limit": "1000", "offset": "0"}),
    ]


def test_whatever_a_policy_writes_can_be_sent(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    env.advance(Action("", tool_calls=(ToolCall("search", {"query": "lunar-dust\0 &limit=9"}),)))
    assert scholar.asked[-1][1]["query"] == "lunar dust &limit=9"
    assert scholar.asked[-1][1]["limit"] == "11"
    env.advance(search("é" * 1999 + "a"))
    assert scholar.asked[-1][1]["query"] == "é" * 300


def test_requests_are_spaced(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack, requests_per_second=20.0)
    begin = time.monotonic()
    env.advance(search("lunar") + expand("c"))
    assert len(scholar.asked) == 3
    assert time.monotonic() - begin >= 2 / 20


def test_arxiv_ids_name_papers_in_any_version_and_else_the_api_s_own(
    tmp_path: Path, scholar: FakeScholar
) -> None:
    papers = [{"id": "arxiv:2001.00001", "title": "Another title", "abstract": "X.", "year": 2000}]
    request = {
        "id": "q",
        "split": "test",
        "query": "dust",
        "gold_ids": ["arxiv:2001.00001", "arXiv:solv-int/9801001v2"],
    }
    for name, record in (("papers", papers[0]), ("queries", request)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record), encoding="utf-8")
    scholar.arxiv = {"a": "2001.00001v3", "b": "solv-int/9801001", "c": "math.GT/0309136v1"}
    env = start(scholar, tmp_path, "q")
    outcome = env.advance(search("solar sails dust"))
    assert set(listed(env)) == {
        "arxiv:2001.00001",
        "arXiv:solv-int/9801001v2",
        "arxiv:math/0309136",
        "s2-e",
    }
    assert outcome.info["recall"] == 1.0
    assert env.advance(expand("arxiv:math/0309136")).info["num_expansions"] == 1


def test_papers_younger_than_the_request_are_not_found_whatever_the_api_says(
    scholar: FakeScholar, pack: Path
) -> None:
    scholar.is_dated = False
    env = start(scholar, pack, "q-late")
    env.advance(search("lunar comet revisited") + expand("c"))
    assert listed(env) == ["c", "a", "b"]
    free = start(scholar, pack, "q-late", date_cutoff=False)
    free.advance(search("lunar comet revisited") + expand("c"))
    assert listed(free) == ["c", "d", "e", "a", "b"]
    assert "year" not in scholar.asked[-3][1]


def test_old_citations_are_looked_for_behind_young_ones(scholar: FakeScholar, pack: Path) -> None:
    scholar.page_size = 1
    env = start(scholar, pack, "q-sails", expand_top_k=1)
    env.advance(search("thin") + expand("a"))
    # The youngest, e (2020), is too young for the request of 2015; c comes before b.
    assert listed(env) == ["a", "c"]
    paths = Counter(path.rsplit("/", 1)[1] for path, _ in scholar.asked)
    assert paths == {"search": 1, "references": 1, "citations": 3}


def test_the_paper_whose_references_are_asked_for_is_hidden_under_any_id(
    scholar: FakeScholar, pack: Path
) -> None:
    scholar.arxiv = {"c": "2001.00009"}
    env = start(scholar, pack, "q-own", search_top_k=1)
    env.advance(search("lunar dust") + expand("b"))
    assert listed(env) == ["b", "a"]


def test_the_request_s_own_paper_is_hidden_by_its_id_under_any_title(
    scholar: FakeScholar, tmp_path: Path
) -> None:
    paper = {"id": "arxiv:2001.00001", "title": "Drag", "abstract": "Dust.", "year": 2005}
    request = {
        "id": "arxiv:2001.00009",
        "split": "test",
        "query": "dust",
        "gold_ids": [paper["id"]],
    }
    own = {**paper, "id": request["id"], "title": "Lunar grains"}
    texts = {"papers": f"{json.dumps(paper)}\n{json.dumps(own)}", "queries": json.dumps(request)}
    for name, text in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    scholar.arxiv = {"b": "2001.00001v2", "c": "2001.00009v2"}
    env = start(scholar, tmp_path, str(request["id"]))
    env.advance(search("lunar dust drag") + expand("arxiv:2001.00001"))
    assert listed(env) == ["arxiv:2001.00001", "s2-a"]


def test_the_request_s_own_paper_is_hidden_by_its_title_where_the_pack_lacks_it(
    scholar: FakeScholar, tmp_path: Path
) -> None:
    paper = {"id": "b", "title": "Drag on solar sails", "abstract": "Dust.", "year": 2005}
    request = {"id": "q", "split": "test", "query": "x", "gold_ids": ["b"], "title": "Lunar Dust."}
    for name, record in (("papers", paper), ("queries", request)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record), encoding="utf-8")
    env = start(scholar, tmp_path, "q")
    env.advance(search("lunar dust") + expand("b"))
    assert listed(env) == ["b", "s2-a"]


def test_the_first_answer_holds_for_the_samples_of_a_group(
    scholar: FakeScholar, pack: Path
) -> None:
    first, second = start(scholar, pack), start(scholar, pack)
    outcome = first.advance(search("lunar") + expand("c"))
    scholar.papers.clear()
    assert second.advance(search("lunar") + expand("c")) == outcome
    assert len(scholar.asked) == 3


def test_a_state_does_not_depend_on_the_order_in_which_papers_came(
    scholar: FakeScholar, pack: Path
) -> None:
    one, other = start(scholar, pack), start(scholar, pack)
    one.advance(search("lunar"))
    one.advance(search("comet"))
    other.advance(search("comet"))
    other.advance(search("lunar"))
    assert one.observation.state_key == other.observation.state_key
    ranked = [env.advance("<answer>done</answer>").info["precision@25"] for env in (one, other)]
    assert ranked == [0.5, 0.5]


def test_the_expert_searches_for_titles_once_each_and_answers_what_it_found(
    scholar: FakeScholar, pack: Path
) -> None:
    env = start(scholar, pack)
    del scholar.papers["s2-b"]
    assert env.distance() is None
    outcomes, _ = play(env, "q-sails", 0, expert_action)
    assert [outcome.terminated for outcome in outcomes] == [False, True]
    assert outcomes[-1].info["recall"] == pytest.approx(2 / 3)
    assert outcomes[-1].info["answer_precision"] == 1.0
    assert env.distance() == 0
    queries = [query["query"] for path, query in scholar.asked if path.endswith("search")]
    assert queries == ["Solar sails", "Drag on solar sails", "Lunar dust"]


def test_the_expert_asks_for_the_titles_of_gold_papers_that_the_pack_lacks(
    scholar: FakeScholar, pack: Path
) -> None:
    env = start(scholar, pack, "q-late", date_cutoff=False)
    assert env.tasks.get("q-late").labels["n_gold"] == 3
    play(env, "q-late", 0, expert_action)
    # It is asked for once, and the API has none.
    assert [path for path, _ in scholar.asked].count("/graph/v1/paper/elsewhere") == 1


def test_the_expert_does_not_take_a_failure_for_no_title(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack, "q-late", date_cutoff=False)
    scholar.script = [(500, {}, b"down")]
    with pytest.raises(TransportError, match="answered 500"):
        env.expert()


def test_lexical_scores_are_shares_of_the_request_s_words(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack, reward="top3", selector="lexical", date_cutoff=False)
    # "solar sails": both words in a, b and e, none in c and d; the best three count.
    assert env.advance(search("solar")).reward_terms == {"top3": 3.0, "repeat": 0.0}
    assert env.advance(search("lunar")).reward == 0.0


def test_a_search_that_finds_nothing_is_a_result(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    outcome = env.advance(search("zeppelin"))
    assert "no paper was found" in outcome.observation.text
    env.advance(search("lunar"))
    # Null: the publisher keeps the list to itself.
    scholar.script = [ok({"data": None}), ok({"data": []})]
    outcome = env.advance(expand("c"))
    assert "c has no known references and nothing known cites it" in outcome.observation.text


FAILURES: dict[str, Reply] = {
    "500 for ever": (500, {}, b"down"),
    "404": (404, {}, b'{"error": "no such route"}'),
    "429 without end": (429, {"retry-after": "0"}, b""),
    "no JSON": (200, {}, b"<html>"),
    "no data": ok({"total": 3}),
    "no paperId": ok({"total": 1, "data": [{"title": "Dust"}]}),
    "no title": ok({"total": 1, "data": [{"paperId": "x"}]}),
    "an id of several words": ok({"total": 1, "data": [{"paperId": "a b", "title": "Dust"}]}),
    "a year in words": ok({"total": 1, "data": [{"paperId": "x", "title": "D", "year": "MM"}]}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_of_the_service_is_an_error_and_uses_nothing_up(
    scholar: FakeScholar, pack: Path, failure: str
) -> None:
    env = start(scholar, pack)
    env.advance(search("drag"))
    saved = env.snapshot()
    assert saved is not None
    scholar.script = [FAILURES[failure]] * 2
    with pytest.raises(EnvError, match="the paper API"):
        env.advance(search("lunar"))
    scholar.script = []
    env.restore(saved)
    outcome = env.advance(search("lunar"))
    assert outcome.info["num_repeats"] == 0
    assert set(listed(env)) == {"b", "c"}


def test_half_an_expansion_is_no_expansion(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    env.advance(search("lunar"))
    scholar.script = [ok({"data": []}), (500, {}, b"")]
    with pytest.raises(EnvError, match="answered 500"):
        env.advance(expand("c"))


def test_a_slow_service_is_an_error(scholar: FakeScholar, pack: Path) -> None:
    over = threading.Event()

    def wait() -> Reply:
        over.wait(20)
        return ok({"total": 0})

    env = start(scholar, pack, timeout_s=0.2)
    scholar.script = [wait]
    try:
        with pytest.raises(EnvError, match="timed out"):
            env.advance(search("lunar"))
    finally:
        over.set()


def test_a_busy_service_is_asked_again(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack, attempts=3)
    scholar.script = [(429, {"retry-after": "0"}, b""), (503, {"retry-after": "0"}, b"")]
    env.advance(search("lunar"))
    assert listed(env) == ["c"]
    assert len(scholar.asked) == 3


def test_a_snapshot_needs_no_service(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    env.advance(search("lunar") + expand("c"))
    saved = env.snapshot()
    assert saved is not None
    scholar.script = [(500, {}, b"down")] * 99
    fork = start(scholar, pack)
    assert fork.restore(saved) == env.observation
    assert fork.snapshot() == saved


def test_the_key_comes_from_the_environment(
    scholar: FakeScholar, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SCHOLAR_KEY", "sesame")
    start(scholar, pack, api_key_env="TEST_SCHOLAR_KEY").advance(search("lunar"))
    start(scholar, pack).advance(search("lunar"))
    assert scholar.keys == ["sesame", None]
    monkeypatch.delenv("TEST_SCHOLAR_KEY")
    with pytest.raises(InvalidInput, match="TEST_OTHER_KEY"):
        start(scholar, pack, api_key_env="TEST_OTHER_KEY")


def test_a_bad_address_is_refused_when_the_environment_is_made() -> None:
    with pytest.raises(InvalidInput, match="the paper API has a URL such as"):
        make("steppo/PaperSearch-v0", api_url="localhost:4000")


def test_tasks_over_an_api_are_other_tasks(scholar: FakeScholar, pack: Path) -> None:
    env = start(scholar, pack)
    assert env.tasks.version != make(env.env_id, data=pack, queries="all").tasks.version
    assert env.tasks.get("q-late").gold == ("c", "elsewhere")


class TestContract(EnvContract):
    env_id = "steppo/PaperSearch-v0"
    options: ClassVar[Mapping[str, object]] = {"queries": "all", "step_limit": 10}
    split = "train"

    @pytest.fixture(autouse=True)
    def _serve(self, scholar: FakeScholar, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {**self.options, "data": str(pack), "api_url": scholar.url}
        monkeypatch.setattr(type(self), "options", settings)
