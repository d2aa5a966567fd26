"""The model that judges papers, over a small server that speaks like an OpenAI-compatible one."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from steppo_env.errors import EnvError, InvalidInput, InvalidOptions, TransportError
from steppo_env.registry import make
from steppo_paper_search.graph import Paper
from steppo_paper_search.judge import Judge, JudgeSettings

Reply = tuple[int, Mapping[str, str], bytes]


class FakeJudge:
    """Answers each question by a function of it.

    Attributes:
        bodies: What was asked, in order.
        most: Most questions that were open at a time.
        reply: From a question to a document, or a whole reply.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.reply: Callable[[str], object] = lambda question: verdict("Yes")
        self.url = ""
        self.most = self._open = 0
        self._lock = threading.Lock()

    def answer(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        asked = json.loads(body)
        with self._lock:
            self.bodies.append({"path": path, **asked})
            self.headers.append(headers)
            self._open += 1
            self.most = max(self.most, self._open)
        question = asked["input"][0] if "input" in asked else asked["messages"][-1]["content"]
        try:
            replied = self.reply(question)
        finally:
            with self._lock:
                self._open -= 1
        return replied if isinstance(replied, tuple) else (200, {}, json.dumps(replied).encode())


def verdict(text: str | None, **probabilities: float) -> dict[str, object]:
    """Return a completion, with log-probabilities when there are any."""
    top = [{"token": word, "logprob": math.log(p)} for word, p in probabilities.items()]
    logprobs = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]} if top else None
    return {"choices": [{"message": {"role": "assistant", "content": text}, "logprobs": logprobs}]}


@pytest.fixture
def fake(serve_http: Callable[..., str]) -> FakeJudge:
    judge = FakeJudge()
    judge.url = serve_http(judge.answer) + "/v1"
    return judge


@contextmanager
def judging(fake: FakeJudge, **settings: Any) -> Iterator[Judge]:
    judge = Judge(JudgeSettings(fake.url, "m", **{"attempts": 1, **settings}))
    try:
        yield judge
    finally:
        judge.close()


DUST, ICE = Paper("p1", "Dust", "Grains charge.", 2010), Paper("p2", "Ice")


def test_a_score_is_the_share_of_yes_among_yes_and_no(fake: FakeJudge) -> None:
    fake.reply = lambda question: verdict("Yes", Yes=0.5, No=0.2, yes=0.1, Maybe=0.2)
    with judging(fake) as judge:
        assert judge.scores("dust", [DUST]) == pytest.approx((0.6 / 0.8,))


def test_a_score_does_not_need_both_words_among_the_likeliest(fake: FakeJudge) -> None:
    fake.reply = lambda question: verdict(" no", **{" no": 0.9, "Perhaps": 0.1})
    with judging(fake) as judge:
        assert judge.scores("dust", [DUST]) == (0.0,)


@pytest.mark.parametrize(
    ("text", "score"), [("Yes", 1.0), (" no.", 0.0), ("**YES**", 1.0), ('"No"', 0.0)]
)
def test_without_log_probabilities_the_word_decides(
    fake: FakeJudge, text: str, score: float
) -> None:
    fake.reply = lambda question: verdict(text)
    with judging(fake) as judge:
        assert judge.scores("dust", [DUST]) == (score,)


def test_a_question_is_one_token_at_temperature_zero_with_both_texts(fake: FakeJudge) -> None:
    with judging(fake) as judge:
        judge.scores("all about dust", [DUST])
    (body,) = fake.bodies
    assert body["path"] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 1)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    question = body["messages"][-1]["content"]
    assert "Request: all about dust" in question
    assert "Title: Dust (2010)\nAbstract: Grains charge." in question


def test_log_probabilities_need_not_be_asked_for(fake: FakeJudge) -> None:
    with judging(fake, has_logprobs=False) as judge:
        judge.scores("dust", [DUST])
    assert "logprobs" not in fake.bodies[0]


def test_a_paper_is_judged_once_for_a_request(fake: FakeJudge) -> None:
    fake.reply = lambda question: verdict("Yes" if "Title: Dust" in question else "No")
    with judging(fake, concurrency=1) as judge:
        assert judge.scores("dust", [DUST, ICE, DUST]) == (1.0, 0.0, 1.0)
        assert judge.scores("dust", [ICE]) == (0.0,)
        assert len(fake.bodies) == 2
        judge.scores("ice", [ICE])
        assert len(fake.bodies) == 3


def test_papers_are_judged_at_a_time_up_to_the_bound(fake: FakeJudge) -> None:
    three = threading.Barrier(3)

    def reply(question: str) -> object:
        three.wait(20)
        return verdict("Yes")

    fake.reply = reply
    papers = [Paper(f"p{number}", f"Paper {number}") for number in range(12)]
    with judging(fake, concurrency=3) as judge:
        assert judge.scores("dust", papers) == (1.0,) * 12
    assert fake.most == 3


FAILURES: dict[str, object] = {
    "another word": verdict("Perhaps"),
    "no word": verdict(None),
    "other words only": verdict("Well", Well=0.9, So=0.1),
    "500": (500, {}, b"down"),
    "no JSON": (200, {}, b"<html>"),
    "no choices": {"choices": []},
    "no message": {"choices": [{}]},
    "an error sent as 200": {"error": {"message": "overloaded"}},
    "no number": (200, {}, json.dumps(verdict("Yes", Yes=1.0)).replace("0.0", "NaN").encode()),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_unreadable_verdict_is_an_error_and_is_not_kept(fake: FakeJudge, failure: str) -> None:
    fake.reply = lambda question: FAILURES[failure]
    with judging(fake) as judge:
        with pytest.raises(TransportError, match="the judge"):
            judge.scores("dust", [DUST])
        fake.reply = lambda question: verdict("Yes")
        assert judge.scores("dust", [DUST]) == (1.0,)


def test_a_busy_judge_is_asked_again(fake: FakeJudge) -> None:
    replies = iter([(429, {"retry-after": "0"}, b""), verdict("No")])
    fake.reply = lambda question: next(replies)
    with judging(fake, attempts=2) as judge:
        assert judge.scores("dust", [DUST]) == (0.0,)


def test_a_slow_judge_is_an_error(fake: FakeJudge) -> None:
    over = threading.Event()
    fake.reply = lambda question: verdict("Yes") if over.wait(20) else None
    try:
        with (
            judging(fake, timeout_s=0.2) as judge,
            pytest.raises(TransportError, match="timed out"),
        ):
            judge.scores("dust", [DUST])
    finally:
        over.set()


def test_a_classifier_s_score_is_what_its_last_class_leaves(fake: FakeJudge) -> None:
    fake.reply = lambda question: {"data": [{"index": 0, "probs": [0.7, 0.3], "label": "x"}]}
    with judging(fake, style="classify") as judge:
        assert judge.scores("dust", [DUST]) == pytest.approx((0.7,))
    (body,) = fake.bodies
    assert (body["path"], body["model"], len(body["input"])) == ("/v1/classify", "m", 1)


@pytest.mark.parametrize("probs", [[3.1, -2.0], [0.7, 0.7], [1.0], []])
def test_raw_scores_of_a_classifier_are_refused(fake: FakeJudge, probs: list[float]) -> None:
    fake.reply = lambda question: {"data": [{"probs": probs}]}
    with judging(fake, style="classify") as judge, pytest.raises(TransportError, match="the judge"):
        judge.scores("dust", [DUST])


SEARCH = '<tool_call>{"name": "search", "arguments": {"query": "solar dust"}}</tool_call>'


def test_an_episode_is_rewarded_and_shown_what_the_judge_says(fake: FakeJudge, pack: Path) -> None:
    fake.reply = lambda question: verdict(
        "x", **({"Yes": 0.8, "No": 0.2} if "Title: Lunar" in question else {"Yes": 0.3, "No": 0.7})
    )
    options = {"data": pack, "reward": "top3", "selector": "endpoint", "attempts": 1}
    env = make(
        "steppo/PaperSearch-v0", **options, judge_url=fake.url, judge_model="m", show_scores=True
    )
    env.start("q-sails", 0)
    outcome = env.advance(SEARCH)
    # a and b (0.3 each) and c (0.8).
    assert outcome.reward == pytest.approx(1.4)
    assert "[c] Lunar dust (2010, new, score 0.80)" in outcome.observation.messages[1].content
    assert len(fake.bodies) == 3


def test_a_failing_judge_ends_the_episode_as_an_error(fake: FakeJudge, pack: Path) -> None:
    fake.reply = lambda question: verdict("Perhaps")
    options = {"data": pack, "reward": "top3", "selector": "endpoint", "attempts": 1}
    env = make("steppo/PaperSearch-v0", **options, judge_url=fake.url, judge_model="m")
    env.start("q-sails", 0)
    with pytest.raises(EnvError, match="answers Yes or No"):
        env.advance(SEARCH)


def test_the_key_comes_from_the_environment(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "sesame")
    with judging(fake, api_key_env="TEST_JUDGE_KEY") as judge:
        judge.scores("dust", [DUST])
    assert fake.headers[0]["authorization"] == "Bearer sesame"
    with pytest.raises(InvalidInput, match="TEST_NO_KEY"):
        Judge(JudgeSettings(fake.url, "m", api_key_env="TEST_NO_KEY"))


def test_selector_endpoint_needs_a_model() -> None:
    with pytest.raises(InvalidOptions, match="judge_url and judge_model"):
        make("steppo/PaperSearch-v0", selector="endpoint")
    with pytest.raises(InvalidOptions, match="judge_url and judge_model"):
        make("steppo/PaperSearch-v0", selector="endpoint", judge_url="http://127.0.0.1:9")
