"""Spans, recorded by a provider of the API's own kind; the SDK is an extra that few install."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer

from steppo_env.errors import MissingDependency
from steppo_server import tracing as tracing_module
from steppo_server.app import create_app
from steppo_server.settings import ServerSettings
from steppo_server.tracing import Tracing, open_tracing

if TYPE_CHECKING:
    from tests.server.conftest import Control

pytestmark = pytest.mark.anyio


class Recorded(NonRecordingSpan):
    """A span that remembers what it was told."""

    def __init__(self, name: str, number: int, parent: SpanContext, begun: int | None) -> None:
        trace_id = parent.trace_id or 0xABC
        super().__init__(SpanContext(trace_id, number, False, TraceFlags(1)))
        self.name, self.parent, self.begun, self.ended = name, parent, begun, -1
        self.attributes: dict[str, Any] = {}

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def update_name(self, name: str) -> None:
        self.name = name

    def end(self, end_time: int | None = None) -> None:
        self.ended = end_time or 0


class Recorder(Tracer):
    """Keeps every span."""

    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    def start_span(self, name: str, context: Any = None, *_: Any, **more: Any) -> Recorded:
        parent = trace.get_current_span(context).get_span_context()
        span = Recorded(name, len(self.spans) + 1, parent, more.get("start_time"))
        span.attributes |= more.get("attributes") or {}
        self.spans.append(span)
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # theirs is usable as a decorator as well
        self, name: str, context: Any = None, *_: Any, **more: Any
    ) -> Any:
        span = self.start_span(name, context, **more)
        with trace.use_span(span, end_on_exit=True):
            yield span


async def test_a_step_is_a_part_of_its_request_which_is_a_part_of_the_callers_trace(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, flushed = Recorder(), threading.Event()
    monkeypatch.setattr(tracing_module, "open_tracing", lambda: Tracing(recorder, flushed.set))
    app = create_app(settings=ServerSettings(journal="sqlite://", otel=True))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        body = {"env_id": "test/Light-v0", "task_id": "train-0", "session_id": "s"}
        await client.post("/v1/sessions", json=body)
        recorder.spans.clear()
        caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await client.post(
            "/v1/sessions/s/steps",
            json={"step_index": 0, "action": "go"},
            headers={"traceparent": caller},
        )
        await client.post("/v1/sessions/s/steps", json={"step_index": 1, "action": "raise"})
    assert flushed.is_set()
    request, step, queue, environment, journal, *failed = recorder.spans
    assert request.name == "POST /v1/sessions/{session_id}/steps"
    assert f"{request.parent.trace_id:032x}" in caller
    assert f"{request.parent.span_id:016x}" in caller
    assert step.name == "step"
    assert step.parent.span_id == request.get_span_context().span_id
    assert step.attributes == {"steppo.session_id": "s", "steppo.environment": "test/Light-v0"}
    phases = (queue, environment, journal)
    assert [span.name for span in phases] == ["queue", "environment", "journal"]
    assert {span.parent.span_id for span in phases} == {step.get_span_context().span_id}
    # One after another, without gaps, and as long as the step.
    edges = [
        step.begun,
        *[edge for span in phases for edge in (span.begun, span.ended)],
        step.ended,
    ]
    assert edges[0::2] == edges[1::2]
    assert edges == sorted(edges)  # type: ignore[type-var]
    assert environment.begun is not None
    assert environment.ended > environment.begun
    assert [span.name for span in failed[1:]] == ["step", "queue", "journal"]


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.sdk") is not None, reason="the SDK is installed"
)
def test_traces_without_the_extra_are_refused_when_the_app_is_made() -> None:
    with pytest.raises(MissingDependency, match=r"steppo-env\[otel\]"):
        create_app(settings=ServerSettings(journal="sqlite://", otel=True))


def test_with_the_extra_spans_go_out_by_otlp() -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    assert isinstance(open_tracing(), Tracing)
