"""What the server counts, as Prometheus reads it.

prometheus_client writes the text; the numbers are kept here. Its own counters take a lock at each
update, and a step has ten of them; here one event loop counts, and a journal's commits are counted by
the journal's one thread. Each app has a registry of its own, so that two in a process do not clash.
What is known anyway, such as the number of live sessions, is read when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from steppo_server.engines import WorkerLoad
from steppo_server.episode import StepTaken

__all__ = ["Histogram", "Live", "Metrics", "SessionEvent", "StepOutcome", "StepTimes"]

DURATIONS_S = (
    *(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
COMMIT_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class StepOutcome(StrEnum):
    """How a step left its episode."""

    CONTINUED = "continued"
    """It goes on."""
    TERMINATED = "terminated"
    """The step ended it."""
    TRUNCATED = "truncated"
    """A limit cut it off."""
    FAILED = "failed"
    """Environment code raised or missed its deadline; the episode is not to be trained on."""


class SessionEvent(StrEnum):
    """What happened to a session."""

    BEGUN = "begun"
    """An episode began."""
    FORKED = "forked"
    """One began in the middle of another."""
    DELETED = "deleted"
    """Its client closed it."""
    EVICTED = "evicted"
    """Its lease ran out, and its memory was freed."""
    REVIVED = "revived"
    """It was taken up again from the journal."""
    REBUILT = "rebuilt"
    """Its environment was lost, or never here, and was rebuilt by replay."""


class StepTimes(NamedTuple):
    """When a step was asked for, answered by its worker, journalled: seconds of `time.perf_counter`."""

    asked: float
    answered: float
    journalled: float


StepListener = Callable[[str, str, StepTaken | None, StepTimes], None]
"""Told of a step what `Metrics.stepped` is told."""


class Live(Protocol):
    """What knows how many sessions there are, and how busy the workers."""

    @property
    def num_sessions_of(self) -> Mapping[str, int]:
        """Live sessions by environment."""
        ...

    @property
    def loads(self) -> Sequence[WorkerLoad]:
        """How busy each worker is."""
        ...


class Histogram:
    """Counts values by size. `bounds` are upper bounds, included."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds and how many values are at most that, as Prometheus counts."""
        bounds, num_below, buckets = [*map(str, map(float, self.bounds)), "+Inf"], 0, []
        for bound, count in zip(bounds, self.counts, strict=True):
            num_below += count
            buckets.append((bound, float(num_below)))
        return buckets


class EnvMetrics:
    """The numbers of one environment, counted without look-ups by label."""

    __slots__ = (
        *("environment_s", "journal_s", "queue_s", "whole_s"),
        *("num_failed", "num_rewarded", "num_terminated", "num_truncated", "reward"),
    )

    def __init__(self) -> None:
        self.num_rewarded = self.num_terminated = self.num_truncated = self.num_failed = 0
        self.reward = 0.0
        self.queue_s = Histogram(DURATIONS_S)
        self.environment_s = Histogram(DURATIONS_S)
        self.journal_s = Histogram(DURATIONS_S)
        self.whole_s = Histogram(DURATIONS_S)

    @property
    def outcomes(self) -> Mapping[StepOutcome, int]:
        """Number of steps by outcome."""
        return {
            StepOutcome.CONTINUED: self.num_rewarded - self.num_terminated - self.num_truncated,
            StepOutcome.TERMINATED: self.num_terminated,
            StepOutcome.TRUNCATED: self.num_truncated,
            StepOutcome.FAILED: self.num_failed,
        }


class Metrics(Collector):
    """All numbers of one server."""

    def __init__(self) -> None:
        self._envs: dict[str, EnvMetrics] = {}
        self._events: Counter[tuple[str, SessionEvent]] = Counter()
        self._replies: Counter[int] = Counter()
        self._commit_entries = Histogram(COMMIT_SIZES)
        self._commit_s = Histogram(DURATIONS_S)
        self._loop_lag_s = Histogram(DURATIONS_S)
        self._live: Live | None = None
        self._listener: StepListener | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def tell_steps(self, listener: StepListener) -> None:
        """Tell each step to somebody else as well."""
        self._listener = listener

    def watch(self, live: Live) -> None:
        """Tell also what this knows."""
        self._live = live

    def happened(self, env_name: str, event: SessionEvent) -> None:
        """Count what happened to a session of an environment that is served."""
        self._events[env_name, event] += 1

    def stepped(self, key: str, env_name: str, taken: StepTaken | None, times: StepTimes) -> None:
        """Count a step of an environment that is served.

        Args:
            key: The session's key.
            taken: What the step did; None when it failed.
        """
        env = self._envs.get(env_name)
        if env is None:
            env = self._envs[env_name] = EnvMetrics()
        asked_s = times.answered - times.asked
        if taken is None:
            env.num_failed += 1
        else:
            env.num_rewarded += 1
            if taken.terminated:
                env.num_terminated += 1
            elif taken.truncated:
                env.num_truncated += 1
            env.reward += taken.reward
            env.environment_s.observe(taken.env_s)
            env.queue_s.observe(max(0.0, asked_s - taken.env_s))
        env.journal_s.observe(times.journalled - times.answered)
        env.whole_s.observe(times.journalled - times.asked)
        if self._listener is not None:
            self._listener(key, env_name, taken, times)

    def replied(self, status: int) -> None:
        """Count an HTTP reply."""
        self._replies[status] += 1

    def committed(self, num_entries: int, duration_s: float) -> None:
        """Count a turn of the journal. Called on the journal's thread."""
        self._commit_entries.observe(num_entries)
        self._commit_s.observe(duration_s)

    def lagged(self, lag_s: float) -> None:
        """Count by how much the event loop was late."""
        self._loop_lag_s.observe(lag_s)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Return all numbers and their media type, in the form that the `Accept` header wants."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield every number, for prometheus_client."""
        yield InfoMetricFamily("steppo", "The server", value={"version": version("steppo-env")})
        yield from self._steps()
        yield from self._sessions()
        yield from self._workers()
        yield from self._server()

    def _steps(self) -> Iterator[Metric]:
        steps = CounterMetricFamily(
            "steppo_steps",
            "Steps taken, by how they left the episode",
            labels=["environment", "outcome"],
        )
        rewards = SummaryMetricFamily(
            "steppo_step_reward", "Rewards of steps that did not fail", labels=["environment"]
        )
        latency = HistogramMetricFamily(
            "steppo_step_seconds",
            "Where the time of a step goes: queue (waiting for the worker, and the way there and back), "
            "environment, journal, whole",
            labels=["environment", "phase"],
        )
        for name, env in self._envs.items():
            for outcome, count in env.outcomes.items():
                steps.add_metric([name, outcome], count)
            rewards.add_metric([name], count_value=env.num_rewarded, sum_value=env.reward)
            phases = {
                "queue": env.queue_s,
                "environment": env.environment_s,
                "journal": env.journal_s,
                "whole": env.whole_s,
            }
            for phase, histogram in phases.items():
                latency.add_metric([name, phase], histogram.buckets(), histogram.total)
        yield from (steps, rewards, latency)

    def _sessions(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "steppo_session_events", "What happened to sessions", labels=["environment", "event"]
        )
        for (name, event), count in self._events.items():
            events.add_metric([name, event], count)
        yield events
        live = GaugeMetricFamily(
            "steppo_sessions", "Sessions in memory, each with a lease", labels=["environment"]
        )
        if self._live is not None:
            for name, count in self._live.num_sessions_of.items():
                live.add_metric([name], count)
        yield live

    def _workers(self) -> Iterator[Metric]:
        if self._live is None:
            return
        loads = self._live.loads
        labels = ["worker", "engine"]

        def gauge(name: str, told: str, value: Callable[[WorkerLoad], float]) -> Metric:
            family = GaugeMetricFamily(f"steppo_worker_{name}", told, labels=labels)
            for load in loads:
                family.add_metric([load.name, load.kind], value(load))
            return family

        yield gauge("sessions", "Episodes that a worker holds", lambda load: load.num_sessions)
        yield gauge(
            "waiting_calls", "Calls that wait for their turn", lambda load: load.num_waiting
        )
        yield gauge(
            "oldest_wait_seconds",
            "How long the first of them waits",
            lambda load: load.oldest_wait_s,
        )
        deaths = CounterMetricFamily(
            "steppo_worker_deaths", "Times that a worker lost its episodes", labels=labels
        )
        queue = SummaryMetricFamily(
            "steppo_worker_queue_seconds", "What calls waited for their turn", labels=labels
        )
        for load in loads:
            deaths.add_metric([load.name, load.kind], load.generation - 1)
            queue.add_metric(
                [load.name, load.kind], count_value=load.num_turns, sum_value=load.total_wait_s
            )
        yield from (deaths, queue)

    def _server(self) -> Iterator[Metric]:
        replies = CounterMetricFamily(
            "steppo_http_replies", "HTTP replies by status", labels=["status"]
        )
        for status, count in self._replies.items():
            replies.add_metric([str(status)], count)
        yield replies
        for name, told, histogram in (
            ("event_loop_lag_seconds", "By how much the event loop is late", self._loop_lag_s),
            ("journal_commit_entries", "Entries in one turn of the journal", self._commit_entries),
            ("journal_commit_seconds", "How long a turn of the journal takes", self._commit_s),
        ):
            yield HistogramMetricFamily(
                f"steppo_{name}", told, buckets=histogram.buckets(), sum_value=histogram.total
            )
