"""OpenTelemetry traces of requests and steps. Imported only where the setting `otel` asks for them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Thread
from typing import Any

import anyio.to_thread
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context
from starlette.types import Scope

from steppo_env.errors import MissingDependency
from steppo_server.episode import StepTaken
from steppo_server.metrics import StepTimes
from steppo_server.session import id_of

__all__ = ["Tracing", "open_tracing"]

SEND_DEADLINE_S = 1.0
"""How long the last spans may take to be sent when the server stops."""


class Tracing:
    """Makes the spans of one server.

    Args:
        tracer: Where they go.
        flush: Sends what is left; blocks. Called once, at the end.
    """

    def __init__(self, tracer: Tracer, flush: Callable[[], object]) -> None:
        self._tracer = tracer
        self._flush = flush

    @contextmanager
    def request(self, scope: Scope) -> Iterator[None]:
        """Trace an HTTP request, as a part of its caller's trace where its headers name one."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method, context=extract(headers), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("http.request.method", method)
            try:
                yield
            finally:
                route = getattr(scope.get("route"), "path", None)  # known after routing
                if route is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)

    def stepped(self, key: str, env_name: str, taken: StepTaken | None, times: StepTimes) -> None:
        """Trace a step that was taken just now: its wait, its environment, its journal entry."""
        now_ns, now = time.time_ns(), time.perf_counter()

        def at(moment: float) -> int:
            return now_ns - int((now - moment) * 1e9)

        attributes = {"steppo.session_id": id_of(key), "steppo.environment": env_name}
        step = self._tracer.start_span("step", start_time=at(times.asked), attributes=attributes)
        inside = set_span_in_context(step)
        # Of a step that failed nobody knows how long its environment took.
        entered = times.answered - (taken.env_s if taken is not None else 0.0)
        phases = [("queue", times.asked, entered), ("journal", times.answered, times.journalled)]
        if taken is not None:
            phases.insert(1, ("environment", entered, times.answered))
        for name, begun, ended in phases:
            span = self._tracer.start_span(name, context=inside, start_time=at(begun))
            span.end(at(ended))
        step.end(at(times.journalled))

    async def close(self) -> None:
        """Send what is left, as far as that can be done in a second."""
        thread = Thread(target=self._flush, name="steppo-traces", daemon=True)
        thread.start()
        await anyio.to_thread.run_sync(thread.join, SEND_DEADLINE_S)


def open_tracing() -> Tracing:
    """Return what sends spans by OTLP over HTTP, to where the variables OTEL_* say.

    Raises:
        MissingDependency: OpenTelemetry's SDK or its exporter is not installed.
    """
    try:
        trace: Any = import_module("opentelemetry.sdk.trace")
        export: Any = import_module("opentelemetry.sdk.trace.export")
        otlp: Any = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise MissingDependency(
            f"the setting otel needs OpenTelemetry ({error}); pip install 'steppo-env[otel]'"
        ) from error
    provider = trace.TracerProvider(shutdown_on_exit=False)  # the app ends it, within its time
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Tracing(provider.get_tracer("steppo_server"), provider.shutdown)
