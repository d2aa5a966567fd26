"""A library of five papers that can be checked by hand, as a data pack on disk; small servers."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import pytest

Answer: TypeAlias = Callable[
    [str, Mapping[str, str], Mapping[str, str], bytes], tuple[int, Mapping[str, str], bytes]
]
"""From path, query, headers (lower case) and body to status, headers and body."""

PAPERS = [
    {
        "id": "a",
        "title": "Solar sails",
        "abstract": "Thin mirrors push a probe.",
        "year": 2000,
        "references": [],
    },
    {
        "id": "b",
        "title": "Drag on solar sails",
        "abstract": "Dust slows a mirror.",
        "year": 2005,
        "references": ["a"],
    },
    {
        "id": "c",
        "title": "Lunar dust",
        "abstract": "Grains charge in sunlight.",
        "year": 2010,
        "references": ["a", "b", "nowhere"],
    },
    {
        "id": "d",
        "title": "Comet tails",
        "abstract": "Ices leave the nucleus.",
        "year": 2015,
        "references": ["c"],
    },
    {
        "id": "e",
        "title": "Solar sails revisited",
        "abstract": None,
        "year": 2020,
        "references": ["c", "a"],
    },
]
QUERIES = [
    {
        "id": "q-sails",
        "set": "hand",
        "split": "train",
        "query": "solar sails",
        "gold_ids": ["a", "b", "c"],
        "year": 2015,
    },
    {
        "id": "q-late",
        "set": "hand",
        "split": "dev",
        "query": "dust",
        "gold_ids": ["c", "d", "elsewhere"],
        "published_time": "20101231",
    },
    {
        "id": "q-open",
        "set": "hand",
        "split": "dev",
        "query": "solar sails",
        "gold_ids": ["e"],
    },
    {
        "id": "q-own",
        "set": "hand",
        "split": "test",
        "query": "what Lunar Dust cites",
        "title": "Lunar dust.",
        "gold_ids": ["a", "b"],
        "year": 2010,
    },
    {
        "id": "q-four",
        "set": "hand",
        "split": "test",
        "query": "solar or dust",
        "gold_ids": ["a", "b", "c", "e"],
    },
    {
        "id": "q-none",
        "set": "hand",
        "split": "test",
        "query": "tails",
        "gold_ids": ["d"],
        "year": 1999,
    },
]


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    for name, records in (("papers", PAPERS), ("queries", QUERIES)):
        lines = [json.dumps(record) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def serve_http() -> Iterator[Callable[[Answer], str]]:
    """Serve functions on 127.0.0.1 until the tests of a module are over; return their URLs."""
    with ExitStack() as stack:
        yield lambda answer: _serve(answer, stack)


def _serve(answer: Answer, stack: ExitStack) -> str:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            status, sent, content = answer(url.path, dict(parse_qsl(url.query)), headers, body)
            self.send_response(status)
            for name, value in {**sent, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that stops waiting is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    stack.callback(server.server_close)
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_address[1]}"
