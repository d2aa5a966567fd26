"""A model behind an HTTP endpoint that judges whether a paper answers a request."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from steppo_env.errors import TransportError
from steppo_paper_search.graph import Paper
from steppo_paper_search.results import SharedResults
from steppo_services import JsonService

__all__ = ["Judge", "JudgeSettings"]

NUM_CACHED_SCORES = 65_536
MAX_ABSTRACT_WORDS = 400
TOP_LOGPROBS = 5
"""As many as every server gives that gives any."""

INSTRUCTIONS = (
    "You judge whether a paper belongs in the answer to a literature request. It does when it "
    "meets everything that the request asks for; sharing its topic is not enough. "
    "Answer with one word: Yes or No."
)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Which model is asked, and how; the fields are the options `judge_*` of the environment."""

    url: str
    model: str
    api_key_env: str | None = None
    style: Literal["chat", "classify"] = "chat"
    has_logprobs: bool = True
    concurrency: int = 8
    timeout_s: float = 30.0
    attempts: int = 4


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _TopLogprob(_Answer):
    token: str
    logprob: float


class _TokenLogprob(_Answer):
    top_logprobs: list[_TopLogprob] = []


class _Logprobs(_Answer):
    content: list[_TokenLogprob] | None = None


class _Message(_Answer):
    content: str | None


class _Choice(_Answer):
    message: _Message
    logprobs: _Logprobs | None = None


class _Completion(_Answer):
    choices: list[_Choice] = Field(min_length=1)


class _Classified(_Answer):
    probs: list[float] = Field(min_length=2)


class _Classification(_Answer):
    data: list[_Classified] = Field(min_length=1, max_length=1)


_COMPLETION = TypeAdapter(_Completion)
_CLASSIFICATION = TypeAdapter(_Classification)


class Judge:
    """Scores in [0, 1], one per request and paper, kept for the process.

    Style `chat` asks `{url}/chat/completions` for one token at temperature 0. The score is
    p(yes) / (p(yes) + p(no)) over the likeliest first tokens where the server tells their
    log-probabilities, and else 1 or 0 by the word that it wrote. Style `classify` asks vLLM's
    `{url}/classify`; the score is 1 minus the probability of the last class, as in the StepPO
    reference. Safe to share between threads.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._service = JsonService(
            settings.url,
            "the judge",
            api_key_env=settings.api_key_env,
            timeout_s=settings.timeout_s,
            attempts=settings.attempts,
            num_connections=settings.concurrency,
        )
        self._workers = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="judge")
        self._known = SharedResults[tuple[str, str, str | None], float](NUM_CACHED_SCORES)

    def close(self) -> None:
        """End the threads and close the connections."""
        self._workers.shutdown(cancel_futures=True)
        self._service.close()

    def scores(self, request: str, papers: Sequence[Paper]) -> tuple[float, ...]:
        """Return how likely each paper answers the request.

        Raises:
            TransportError: The model could not be asked, or gave no verdict.
        """
        return tuple(self._workers.map(lambda paper: self._score(request, paper), papers))

    def _score(self, request: str, paper: Paper) -> float:
        key = (request, paper.title, paper.abstract)
        ask = self._chat if self._settings.style == "chat" else self._classify
        return self._known.get(key, lambda: ask(_question(request, paper)))

    def _chat(self, question: str) -> float:
        body: dict[str, JsonValue] = {
            "model": self._settings.model,
            "messages": [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": question},
            ],
            "temperature": 0,
            "max_tokens": 1,
        }
        if self._settings.has_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        choice = self._service.post("chat/completions", body, _COMPLETION).choices[0]
        tokens = choice.logprobs.content if choice.logprobs is not None else None
        if tokens and tokens[0].top_logprobs:
            score = _share_of_yes(tokens[0].top_logprobs)
        else:
            score = _verdict(choice.message.content or "")
        if score is None:
            raise TransportError(
                f"the judge answers Yes or No, but {self._settings.model} began with "
                f"{(choice.message.content or '')[:40]!r}; it must answer without reasoning first"
            )
        return score

    def _classify(self, question: str) -> float:
        body: JsonValue = {"model": self._settings.model, "input": [question]}
        (classified,) = self._service.post("classify", body, _CLASSIFICATION).data
        probs = classified.probs
        # Servers that ignore the activation send raw scores: these are no probabilities.
        if min(probs) < 0.0 or not math.isclose(sum(probs), 1.0, abs_tol=1e-2):
            raise TransportError(f"the judge answers probabilities that sum to 1, not {probs[:8]}")
        return min(1.0, max(0.0, 1.0 - probs[-1]))


def _question(request: str, paper: Paper) -> str:
    words = (paper.abstract or "").split()
    abstract = " ".join(words[:MAX_ABSTRACT_WORDS]) or "not known"
    year = "year not known" if paper.year is None else str(paper.year)
    return (
        f"Request: {request}\n\nTitle: {paper.title} ({year})\nAbstract: {abstract}\n\n"
        "Does this paper belong in the answer? Yes or No:"
    )


def _verdict(text: str) -> float | None:
    """Return 1 for yes, 0 for no, None for anything else."""
    return {"yes": 1.0, "no": 0.0}.get(text.strip(" \t\n\"'*.,!:").lower())


def _share_of_yes(tokens: Sequence[_TopLogprob]) -> float | None:
    """Return p(yes) / (p(yes) + p(no)) over all ways to write them, None without either."""
    weights = {1.0: 0.0, 0.0: 0.0}
    best = max(token.logprob for token in tokens)
    for token in tokens:
        verdict = _verdict(token.token)
        if verdict is not None:
            weights[verdict] += math.exp(token.logprob - best)
    total = weights[1.0] + weights[0.0]
    return weights[1.0] / total if total else None
