"""Real services on 127.0.0.1: what they answer is a function of the test, and they note each request."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stamina

from steppo_multihop_qa.retrieval import Corpus, Passage, words_of

DIMENSION = 64
Answer = Callable[[str, Any], tuple[int, Any]]


class Service:
    """A server that runs until it is closed.

    Attributes:
        answer: From the path and the body of a request to the status and the JSON of its answer.
        requests: Path, headers and body of each request so far.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.requests.append((self.path, headers, body))
                status, found = service.answer(self.path, body)
                content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with suppress(ConnectionError):  # a client whose time is up does not read it
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Keep stderr clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def embedding(text: str, dimension: int = DIMENSION) -> list[float]:
    """Return the counts of a text's words, each at a place that its hash says."""
    counts = [0.0] * dimension
    for word in words_of(text):
        number = int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "little")
        counts[number % dimension] += 1.0
    return counts


def embed(path: str, body: Any) -> tuple[int, Any]:
    """Answer as an OpenAI-compatible embeddings endpoint does, the last text first."""
    assert path == "/v1/embeddings"
    data = [
        {"object": "embedding", "index": index, "embedding": embedding(text)}
        for index, text in enumerate(body["input"])
    ]
    return 200, {"object": "list", "model": body["model"], "data": data[::-1]}


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Service]]:
    """Return what starts a service; each is closed after the test."""
    with ExitStack() as stack:

        def start(answer: Answer) -> Service:
            service = Service(answer)
            stack.callback(service.close)
            return service

        yield start


@pytest.fixture
def once() -> Iterator[None]:
    """Send each call once: what is tested is the failure and not the repetition."""
    stamina.set_testing(True, attempts=1)
    yield
    stamina.set_testing(False)


@pytest.fixture
def corpus() -> Corpus:
    """Return five passages."""
    return Corpus(
        [
            Passage("p1", "Ada Byrne", "Ada Byrne was born in Oxmoor."),
            Passage("p2", "Oxmoor", "Oxmoor lies on the river Lune."),
            Passage("p3", "Lune", "The Lune is 53 miles long."),
            Passage("p4", "Tin Drums", "A band from Oxmoor & Lune."),
            Passage("p5", "", ""),
        ]
    )
