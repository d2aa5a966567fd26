"""A scoring endpoint on loopback: a word that stands in the prompt already is likely to come again."""

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from steppo_information_gain.endpoint import shared_endpoint

SEEN, UNSEEN = math.log(0.8), math.log(0.05)


class Scorer(ThreadingHTTPServer):
    """Tells prompt log-probabilities as vLLM and OpenAI do: 0.8 for a word seen before, else 0.05.

    Attributes:
        spoil: Changes a reply of /v1/completions before it is sent.
        status: What completions are answered with.
        calls: Path and body of every request, in the order of arrival.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spoil: Callable[[dict[str, Any]], object] = lambda reply: None
        self.status = 200
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def num_completions(self) -> int:
        return sum(path == "/v1/completions" for path, _ in self.calls)

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.calls.append((path, body))
            if path == "/tokenize":
                return 200, {"tokens": self.tokenize(body)}
            assert path == "/v1/completions", path
            choices = [
                {"index": index, **self.scored(prompt, body)}
                for index, prompt in enumerate(body["prompt"])
            ]
            reply: dict[str, Any] = {"choices": choices[::-1]}  # in no order
            self.spoil(reply)
            return self.status, reply

    def tokenize(self, body: dict[str, Any]) -> list[int]:
        if "prompt" in body:
            text = body["prompt"]
        else:
            turns = [f"{turn['role']} {turn['content']}" for turn in body["messages"]]
            text = "\n".join([*turns, "assistant "])
        return [self._ids.setdefault(piece, len(self._ids) + 100) for piece in pieces(text)]

    def scored(self, prompt: list[int] | str, body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(prompt, str):
            assert body["echo"] is True
            tokens = pieces(prompt)
            logprobs = guess(tokens)
            return {"logprobs": {"tokens": ["<s>", *tokens], "token_logprobs": [None, *logprobs]}}
        assert body["prompt_logprobs"] == 0
        by_id = {token: piece for piece, token in self._ids.items()}
        told = guess([by_id[token] for token in prompt])
        entries = [{str(token): {"logprob": value}} for token, value in zip(prompt, told)]
        return {"prompt_logprobs": [None, *entries[1:]]}


def pieces(text: str) -> list[str]:
    """Split text into words and single other characters."""
    return re.findall(r"\w+|\W", text)


def guess(tokens: list[str]) -> list[float]:
    """Return the log-probability of each token."""
    seen: set[str] = set()
    found: list[float] = []
    for token in tokens:
        found.append(SEEN if token in seen else UNSEEN)
        seen.add(token)
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for the client's acknowledgement

    def do_POST(self) -> None:
        assert isinstance(self.server, Scorer)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, reply = self.server.reply(self.path, body)
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scorer]:
    """A scoring endpoint that has been asked nothing yet; stopped after the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = Scorer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        shared_endpoint.cache_clear()
        server.shutdown()
        thread.join()
        server.server_close()
