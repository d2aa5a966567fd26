"""Opens what the options name, once per process: the library, and the model that judges."""

import atexit
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steppo_paper_search.collection import load_collection
from steppo_paper_search.identity import Identities
from steppo_paper_search.judge import Judge, JudgeSettings
from steppo_paper_search.library import Library
from steppo_paper_search.local import load_local
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.remote import RemoteLibrary
from steppo_paper_search.scholar_api import ScholarApi
from steppo_services import JsonService

__all__ = ["open_judge", "open_library"]

_OPENING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _ApiSettings:
    folder: Path | None
    url: str
    api_key_env: str | None
    per_second: float | None
    timeout_s: float
    attempts: int


def open_library(options: PaperSearchOptions) -> Library:
    """Return the library that the options name; all that name the same share one.

    Raises:
        MissingData: The data pack is not there or not readable.
        InvalidInput: It has a bad line; or the API's URL is none, or its key is not set.
    """
    if options.api_url is None:
        return load_local(options.data)
    settings = _ApiSettings(
        None if options.data is None else options.data.resolve(),
        options.api_url,
        options.api_key_env,
        options.requests_per_second,
        options.timeout_s,
        options.attempts,
    )
    with _OPENING:
        return _open_api(settings)


def open_judge(options: PaperSearchOptions) -> Judge | None:
    """Return the model that the options name, None where they name none; shared likewise.

    Raises:
        InvalidInput: The model's URL is none, or its key is not set.
    """
    if options.judge_url is None or options.judge_model is None:
        return None
    settings = JudgeSettings(
        options.judge_url,
        options.judge_model,
        options.judge_api_key_env,
        options.judge_style,
        options.judge_logprobs,
        options.judge_concurrency,
        options.timeout_s,
        options.attempts,
    )
    with _OPENING:
        return _open_judge(settings)


@cache
def _open_judge(settings: JudgeSettings) -> Judge:
    judge = Judge(settings)
    atexit.register(judge.close)
    return judge


@cache
def _open_api(settings: _ApiSettings) -> RemoteLibrary:
    pack = load_collection(settings.folder)
    service = JsonService(
        settings.url,
        "the paper API",
        api_key_env=settings.api_key_env,
        api_key_header="x-api-key",
        timeout_s=settings.timeout_s,
        attempts=settings.attempts,
        per_second=settings.per_second,
    )
    atexit.register(service.close)
    gold_ids = (paper_id for query in pack.queries for paper_id in query.gold_ids)
    return RemoteLibrary(ScholarApi(service, Identities(pack.graph.papers, gold_ids)), pack)
