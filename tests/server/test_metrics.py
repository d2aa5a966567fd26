"""What /metrics tells: every number by hand, and that asking is cheap and clashes with nobody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from steppo_server.auth import Keyring, KeyScope, digest_of, new_key
from steppo_server.episode import StepTaken
from steppo_server.metrics import Histogram, Metrics, SessionEvent, StepTimes

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers, Serving

pytestmark = pytest.mark.anyio

ENV = "test/Light-v0"
DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def samples(text: str | bytes) -> dict[tuple[str, ...], float]:
    """Return the values by name and labels, in the labels' order of name."""
    text = text.decode() if isinstance(text, bytes) else text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return samples(response.text)


async def new(client: httpx.AsyncClient, session_id: str, env_id: str = ENV, **more: object) -> int:
    body = {"env_id": env_id, "task_id": "train-0", "session_id": session_id, **more}
    return (await client.post("/v1/sessions", json=body)).status_code


async def step(client: httpx.AsyncClient, session_id: str, index: int, action: str) -> int:
    body = {"step_index": index, "action": action}
    return (await client.post(f"/v1/sessions/{session_id}/steps", json=body)).status_code


def taken(
    reward: float, env_s: float, *, terminated: bool = False, truncated: bool = False
) -> StepTaken:
    return StepTaken(b"", "", "", terminated, truncated, reward, {"goal": reward}, env_s)


def test_a_histogram_counts_values_up_to_its_bounds_and_them_included() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 9):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.0", 3), ("4.0", 4), ("+Inf", 5)]
    assert histogram.total == 16


def test_steps_are_counted_by_outcome_with_their_rewards_and_where_their_time_went() -> None:
    metrics = Metrics()
    times = StepTimes(asked=10.0, answered=10.5, journalled=10.75)
    metrics.stepped("k", "e", taken(1.5, 0.375), times)
    metrics.stepped("k", "e", taken(-2.0, 0.375, terminated=True), times)
    metrics.stepped("k", "e", taken(0.0, 0.375, truncated=True), times)
    metrics.stepped("k", "e", None, times)
    found = samples(metrics.text()[0])
    for outcome in ("continued", "terminated", "truncated", "failed"):
        assert found["steppo_steps_total", "e", outcome] == 1
    assert found["steppo_step_reward_count", "e"] == 3  # a step that failed has no reward
    assert found["steppo_step_reward_sum", "e"] == -0.5
    seconds = {"queue": 3 * 0.125, "environment": 3 * 0.375, "journal": 1.0, "whole": 3.0}
    for phase, expected in seconds.items():
        assert found["steppo_step_seconds_sum", "e", phase] == expected
    assert found["steppo_step_seconds_bucket", "e", "0.25", "queue"] == 3
    assert found["steppo_step_seconds_bucket", "e", "0.25", "environment"] == 0
    assert found["steppo_step_seconds_bucket", "e", "+Inf", "whole"] == 4


def test_a_worker_whose_clock_runs_ahead_makes_no_negative_wait() -> None:
    metrics = Metrics()
    metrics.stepped("k", "e", taken(0.0, 0.7), StepTimes(0.0, 0.5, 0.5))
    assert samples(metrics.text()[0])["steppo_step_seconds_sum", "e", "queue"] == 0


def test_two_in_one_process_do_not_clash() -> None:
    first, second = Metrics(), Metrics()
    first.happened("e", SessionEvent.BEGUN)
    name = ("steppo_session_events_total", "e", "begun")
    assert samples(first.text()[0])[name] == 1
    assert name not in samples(second.text()[0])


def test_openmetrics_is_given_to_those_who_ask_for_it() -> None:
    text, media_type = Metrics().text("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


async def test_what_happens_to_sessions_is_counted(serving: Serving, control: Control) -> None:
    async with serving() as client:
        for session_id in ("a", "b"):
            assert await new(client, session_id) == 201
        assert await step(client, "a", 0, "go") == 200
        assert await step(client, "a", 0, "go") == 200  # a retry is no second step
        assert await step(client, "a", 1, "raise") == 500
        assert (await client.post("/v1/sessions/b/forks", json={"count": 2})).status_code == 201
        await client.delete("/v1/sessions/b")
        assert await new(client, "x", "test/Nothing-v0") == 404
        found = await scraped(client)
    assert found["steppo_session_events_total", ENV, "begun"] == 2
    assert found["steppo_session_events_total", ENV, "forked"] == 2
    assert found["steppo_session_events_total", ENV, "deleted"] == 1
    assert found["steppo_sessions", ENV] == 3
    assert found["steppo_steps_total", ENV, "continued"] == 1
    assert found["steppo_steps_total", ENV, "failed"] == 1
    assert found["steppo_http_replies_total", "201"] == 3
    assert found["steppo_http_replies_total", "404"] == 1
    assert found["steppo_journal_commit_entries_sum",] >= 6
    assert not [labels for labels in found if "test/Nothing-v0" in labels]  # anybody could fill it


async def test_eviction_revival_and_rebuilding_are_counted(
    managers: Managers, tmp_path: Path
) -> None:
    from steppo_env.wire import CreateSession, StepRequest

    url = f"sqlite:///{tmp_path / 'journal.db'}"
    first = managers(journal=url)
    body = CreateSession(env_id=ENV, task_id="train-0", session_id="s", lease_s=1e-6)
    await first.create("", body)
    with anyio.fail_after(10):
        while not await first.sweep():
            await anyio.lowlevel.checkpoint()
    lasting = CreateSession(env_id=ENV, task_id="train-0", session_id="t")
    await first.create("", lasting)
    second = managers(journal=url)
    await second.step("", "t", StepRequest(step_index=0, action="go"))
    events = [samples(manager.metrics.text()[0]) for manager in (first, second)]
    assert events[0]["steppo_session_events_total", ENV, "evicted"] == 1
    assert events[1]["steppo_session_events_total", ENV, "revived"] == 1
    assert events[1]["steppo_session_events_total", ENV, "rebuilt"] == 1


async def test_a_hung_step_is_a_death_of_its_worker(serving: Serving, control: Control) -> None:
    stub = "test/Stub-v0"
    async with serving(step_deadline_s=0.05) as client:
        await new(client, "s", stub)
        assert await step(client, "s", 0, "wait x") == 504
        control.open("x")
        found = await scraped(client)
    assert found["steppo_worker_deaths_total", "thread", stub] == 1
    assert found["steppo_worker_queue_seconds_count", "thread", stub] >= 2
    assert found["steppo_steps_total", stub, "failed"] == 1


async def test_numbers_are_for_keys_with_the_scope_admin(serving: Serving) -> None:
    from steppo_server.auth import Caller

    keys = {scope: new_key() for scope in (KeyScope.ACT, KeyScope.ADMIN)}
    keyring = Keyring(
        {digest_of(key): Caller(scope, frozenset({scope})) for scope, key in keys.items()}
    )
    async with serving(keyring=keyring) as client:
        assert (await client.get("/metrics")).status_code == 401
        for scope, status in ((KeyScope.ACT, 403), (KeyScope.ADMIN, 200)):
            headers = {"Authorization": f"Bearer {keys[scope]}"}
            assert (await client.get("/metrics", headers=headers)).status_code == status


async def test_every_number_is_documented_and_no_other(serving: Serving) -> None:
    async with serving() as client:
        text = (await client.get("/metrics")).text
    told = {family.name for family in text_string_to_metric_families(text)}
    rows = re.findall(
        r"^\| `(steppo_\w+?)(?:_total|_info)?`", DOCS.read_text("utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted(name for name in told if name.startswith("steppo"))
