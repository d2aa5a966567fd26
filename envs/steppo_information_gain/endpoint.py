"""One scoring endpoint of a process: its connections, and what it has told."""

import weakref
from functools import lru_cache

from steppo_information_gain.kept import Kept
from steppo_services import JsonService

__all__ = ["ScoringEndpoint", "shared_endpoint"]

MAX_SCORES = 20_000
"""Questions whose scores are kept for each endpoint."""

MAX_TEXTS = 2_000
"""Texts whose tokens are kept for each endpoint."""

MAX_ENDPOINTS = 8
"""Endpoints of one process whose connections are kept open."""


class ScoringEndpoint:
    """A service with what it has told already. Safe to use from several threads.

    The connections are closed when nobody holds the object any more, and at the end of the process.

    Attributes:
        scores: By question: the mean log-probability of each of its answers, in nats.
        tokens: By model and text: the ids of its tokens.
    """

    def __init__(self, service: JsonService) -> None:
        self.service = service
        self.scores = Kept[tuple[float, ...]](MAX_SCORES)
        self.tokens = Kept[tuple[int, ...]](MAX_TEXTS)
        weakref.finalize(self, service.close)


@lru_cache(maxsize=MAX_ENDPOINTS)
def shared_endpoint(
    base_url: str,
    *,
    api_key_env: str | None,
    timeout_s: float,
    attempts: int,
    per_second: float | None,
) -> ScoringEndpoint:
    """Return the endpoint with these settings that all environments of the process share.

    Raises:
        InvalidInput: The environment variable of the key is not set.
    """
    # vLLM's /tokenize stands beside /v1, not under it.
    root = base_url.rstrip("/").removesuffix("/v1")
    service = JsonService(
        root,
        "the scoring endpoint",
        api_key_env=api_key_env,
        timeout_s=timeout_s,
        attempts=attempts,
        per_second=per_second,
    )
    return ScoringEndpoint(service)
