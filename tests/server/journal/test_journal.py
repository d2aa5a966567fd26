"""What a journal promises, in each kind of database."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from sqlalchemy import Connection, Engine, event

from steppo_env.errors import (
    InvalidInput,
    SessionExists,
    StoreError,
    StoreFromFuture,
    UnknownSession,
)
from steppo_server.journal import (
    Journal,
    Journalled,
    SessionRow,
    StepExists,
    StepRow,
    open_journal,
    statements,
)
from steppo_server.journal.schema import JOURNAL, steps

pytestmark = pytest.mark.anyio

MakeSession = Callable[..., SessionRow]
MakeStep = Callable[..., StepRow]
Execute = Callable[..., None]


@pytest.fixture
async def other(url: str, journal: Journal) -> AsyncIterator[Journal]:
    """The journal of another server on the same database."""
    async with open_journal(url) as other:
        yield other


@contextmanager
def counted_commits() -> Iterator[list[Connection]]:
    """Collect the transactions that any engine commits meanwhile."""
    commits: list[Connection] = []

    def note(connection: Connection) -> None:
        commits.append(connection)

    event.listen(Engine, "commit", note)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", note)


async def outcomes_of(*calls: Callable[[], object]) -> list[object]:
    """Make calls at the same time; return what each returned or raised."""
    outcomes: list[object] = [None] * len(calls)

    async def run(at: int) -> None:
        try:
            outcomes[at] = await calls[at]()  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - what it raises is what it is asked for
            outcomes[at] = error

    async with anyio.create_task_group() as group:
        for at in range(len(calls)):
            group.start_soon(run, at)
    return outcomes


async def test_what_was_added_comes_back_exactly_also_after_reopening(
    url: str, session_row: MakeSession, step_row: MakeStep
) -> None:
    row = session_row(
        "s:1.a-b_C",
        request='{"options": "ä\u2028"}'.encode(),
        lease_s=0.1,
        lease_expires_at=1_763_655_000.123456,
        created_at=1_763_654_000.000001,
        group_id="g",
        parent_id="p",
        parent_step=3,
    )
    taken = (
        step_row("s:1.a-b_C", 0, action=b"\x00\xff" * 100_000),
        step_row("s:1.a-b_C", 1, truncated=True, problem=b'{"status": 500}'),
        step_row("s:1.a-b_C", 2, terminated=True),
    )
    async with open_journal(url) as journal:
        await journal.add_session(row)
        for step in taken:
            await journal.add_step(step)
        assert await journal.load(row.session_id) == Journalled(row, taken)
    async with open_journal(url) as journal:
        found = await journal.load(row.session_id)
        assert found == Journalled(row, taken)
        assert found is not None
        assert [type(step.terminated) for step in found.steps] == [bool] * 3


async def test_a_session_that_nobody_added_is_none(journal: Journal) -> None:
    for unknown in ("other", "", "a\0b", "\ud800", "' OR 1=1 --"):
        assert await journal.load(unknown) is None


async def test_a_session_is_added_once_whoever_adds_it(
    journal: Journal, other: Journal, session_row: MakeSession
) -> None:
    first = session_row("one")
    await journal.add_session(first)
    for each in (journal, other):
        with pytest.raises(SessionExists, match="session one exists"):
            await each.add_session(session_row("one", owner="key-2"))
    assert await other.load("one") == Journalled(first, ())


async def test_a_session_comes_with_the_steps_it_begins_with_or_not_at_all(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    past = [step_row("fork", 0), step_row("fork", 1)]
    await journal.add_session(session_row("fork", parent_id="one", parent_step=2), past)
    with pytest.raises(SessionExists):
        await journal.add_session(session_row("fork"), [*past, step_row("fork", 2)])
    found = await journal.load("fork")
    assert found is not None
    assert list(found.steps) == past


async def test_steps_that_are_not_the_sessions_first_are_refused(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    for bad in (step_row("one", 1), step_row("two", 0)):
        with pytest.raises(InvalidInput, match="at place 0 stands step"):
            await journal.add_session(session_row("one"), [bad])
    assert await journal.load("one") is None


async def test_a_step_is_added_once_and_whoever_comes_later_gets_what_is_there(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    first = step_row("one", 0, action=b'"first"')
    await journal.add_step(first)
    for each in (journal, other):
        for late in (first, step_row("one", 0, action=b'"late"', action_key="b" * 64)):
            with pytest.raises(StepExists) as caught:
                await each.add_step(late)
            assert caught.value.existing == first
    found = await other.load("one")
    assert found is not None
    assert found.steps == (first,)


async def test_a_step_of_an_unknown_session_is_refused_and_its_neighbours_are_not(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    outcomes = await outcomes_of(
        lambda: journal.add_step(step_row("one", 0)),
        lambda: journal.add_step(step_row("gone", 0)),
        lambda: journal.add_step(step_row("one", 1)),
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), UnknownSession, type(None)]
    found = await journal.load("one")
    assert found is not None
    assert len(found.steps) == 2


async def test_an_entry_that_cannot_be_written_fails_alone(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    for name in ("one", "gone"):
        await journal.add_session(session_row(name))
    await journal.add_step(step_row("one", 0))
    outcomes = await outcomes_of(
        lambda: journal.add_step(step_row("one", 1)),
        lambda: journal.add_step(step_row("one", 0, action_key="other")),
        lambda: journal.add_step(step_row("one", 2, trace_key="\ud800")),
        lambda: journal.add_step(step_row("one", 2**63)),
        lambda: journal.add_session(session_row("one")),
        lambda: journal.add_session(session_row("two")),
        lambda: journal.add_step(step_row("one", 2, action=None)),
        lambda: journal.renew({"one": 5_000.0}),
        lambda: journal.remove_session("gone"),
        lambda: journal.beat(),
    )
    done = type(None)
    assert [type(outcome) for outcome in outcomes] == [
        done,
        StepExists,
        InvalidInput,
        outcomes[3].__class__,
        SessionExists,
        done,
        StoreError,
        done,
        done,
        done,
    ]
    assert isinstance(outcomes[3], InvalidInput | StoreError)  # the driver or the server says so
    found = await journal.load("one")
    assert found is not None
    assert [step.step_index for step in found.steps] == [0, 1]
    assert found.row.lease_expires_at == 5_000.0
    assert await journal.load("gone") is None
    assert await journal.load("two") is not None


async def test_steps_added_together_share_a_commit_and_each_has_its_own_outcome(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    for name in ("one", "two", "three"):
        await journal.add_session(session_row(name))
    with counted_commits() as commits:
        done = await journal.add_steps([step_row(name, 0) for name in ("two", "one")])
    assert ([*done], len(commits)) == ([None, None], 1)
    taken = step_row("one", 1, action_key="first")
    await other.add_step(taken)
    rows = [
        step_row("two", 1),
        step_row("one", 1),
        step_row("gone", 0),
        step_row("three", 0, action=None),
        step_row("three", 0),
        step_row("three", 1),
    ]
    outcomes = await journal.add_steps(rows)
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        StepExists,
        UnknownSession,
        StoreError,
        type(None),
        type(None),
    ]
    assert isinstance(outcomes[1], StepExists)
    assert outcomes[1].existing == taken
    for name, expected in (("one", (0, 1)), ("two", (0, 1)), ("three", (0, 1))):
        found = await other.load(name)
        assert found is not None
        assert tuple(step.step_index for step in found.steps) == expected


async def test_steps_added_together_come_between_what_was_asked_before_and_after(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    outcomes = await outcomes_of(
        lambda: journal.add_step(step_row("one", 0)),
        lambda: journal.add_steps([step_row("one", 1), step_row("one", 0)]),
        lambda: journal.add_steps([]),
        lambda: journal.add_step(step_row("one", 1)),
        lambda: journal.add_steps([step_row("one", 2)]),
        lambda: journal.load("one"),
    )
    first, together, nothing, repeated, last, found = outcomes
    assert (first, nothing, last) == (None, (), [None])
    assert isinstance(together, list)
    assert [type(outcome) for outcome in together] == [type(None), StepExists]
    assert isinstance(repeated, StepExists)
    assert isinstance(found, Journalled)
    assert [step.step_index for step in found.steps] == [0, 1, 2]


async def test_a_cancelled_caller_takes_back_none_of_the_steps_it_added_together(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    async with anyio.create_task_group() as group:
        group.start_soon(journal.add_steps, [step_row("one", 0), step_row("one", 1)])
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    await journal.add_step(step_row("one", 2))
    found = await journal.load("one")
    assert found is not None
    assert [step.step_index for step in found.steps] == [0, 1, 2]


async def test_steps_added_together_to_a_closed_journal_each_get_an_error_of_their_own(
    journal: Journal, step_row: MakeStep
) -> None:
    await journal.close()
    first, second = await journal.add_steps([step_row("one", 0), step_row("two", 0)])
    assert isinstance(first, StoreError)
    assert isinstance(second, StoreError)
    assert first is not second


async def test_callers_that_come_together_share_a_commit(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    num_sessions, num_steps = 64, 10
    names = [f"s{number}" for number in range(num_sessions)]

    async def play(name: str) -> None:
        await journal.add_session(session_row(name))
        for step_index in range(num_steps):
            await journal.add_step(step_row(name, step_index))

    with counted_commits() as commits:
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(play, name)
    assert len(commits) <= 2 * (num_steps + 1)  # 704 entries
    for name in names:
        found = await journal.load(name)
        assert found is not None
        assert [step.step_index for step in found.steps] == [*range(num_steps)]


async def test_what_was_asked_first_is_committed_first_whatever_its_kind(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    finished: list[int] = []

    async def add(step_index: int) -> None:
        await journal.add_step(step_row("one", step_index))
        # Whoever is told sees everything that was asked before, also through another server.
        found = await other.load("one")
        assert found is not None
        assert len(found.steps) > step_index
        finished.append(step_index)

    async with anyio.create_task_group() as group:
        for step_index in range(200):
            group.start_soon(add, step_index)
    assert len(finished) == 200


async def test_two_servers_that_race_for_steps_add_each_exactly_once(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    names = [f"s{number}" for number in range(8)]
    for name in names:
        await journal.add_session(session_row(name))
    winners: dict[tuple[str, int], list[str]] = {}
    losers: list[tuple[StepRow, StepRow]] = []

    async def add(server: str, name: str, step_index: int) -> None:
        row = step_row(name, step_index, action_key=server)
        try:
            await {"a": journal, "b": other}[server].add_step(row)
        except StepExists as error:
            losers.append((row, error.existing))
        else:
            winners.setdefault((name, step_index), []).append(server)

    for step_index in range(20):
        async with anyio.create_task_group() as group:
            # Opposite orders, so that servers which waited row by row would wait in a circle.
            for server, order in (("a", names), ("b", names[::-1])):
                for name in order:
                    group.start_soon(add, server, name, step_index)
    assert len(winners) == len(losers) == 8 * 20
    for given, existing in losers:
        other_key = {"a": "b", "b": "a"}[given.action_key]
        assert existing == replace(given, action_key=other_key)
    for name in names:
        found = await journal.load(name)
        assert found is not None
        for step in found.steps:
            assert winners[name, step.step_index] == [step.action_key]


async def test_of_equal_callers_that_come_together_exactly_one_adds(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    made = await outcomes_of(*[lambda: journal.add_session(session_row("one"))] * 5)
    assert (
        sorted(type(outcome).__name__ for outcome in made) == ["NoneType"] + ["SessionExists"] * 4
    )
    taken = await outcomes_of(*[lambda: journal.add_step(step_row("one", 0))] * 5)
    assert [type(outcome) for outcome in taken] == [type(None)] + [StepExists] * 4


async def test_a_cancelled_caller_neither_loses_nor_doubles_its_entry(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    scopes = [anyio.CancelScope() for _ in range(50)]

    async def add(step_index: int) -> None:
        with scopes[step_index]:
            await journal.add_step(step_row("one", step_index))

    async with anyio.create_task_group() as group:
        for step_index in range(50):
            group.start_soon(add, step_index)
        await anyio.lowlevel.checkpoint()  # all are waiting now
        for scope in scopes[::2]:
            scope.cancel()
    found = await journal.load("one")
    assert found is not None
    assert [step.step_index for step in found.steps] == [*range(50)]


async def test_a_lease_is_the_latest_that_was_written(
    journal: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    async def lease() -> float:
        found = await journal.load("one")
        assert found is not None
        return found.row.lease_expires_at

    await journal.add_session(session_row("one", lease_expires_at=10.0))
    await journal.add_session(session_row("two", lease_expires_at=10.0))
    assert await lease() == 10.0
    await journal.add_step(step_row("one", 0, lease_expires_at=12.5))
    assert await lease() == 12.5
    await journal.renew({"one": 11.0, "nobody": 99.0})
    assert await lease() == 12.5
    await journal.renew({"one": 20.0} | {f"s{number}": 1.0 for number in range(300)})
    assert await lease() == 20.0
    await journal.renew({"one": 15.0})
    await journal.renew({})
    assert await lease() == 20.0
    two = await journal.load("two")
    assert two is not None
    assert two.row.lease_expires_at == 10.0


async def test_a_removed_session_is_gone_with_its_steps_and_its_id_is_free(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    await journal.add_session(session_row("one"))
    await journal.add_step(step_row("one", 0))
    await other.remove_session("one")
    await journal.remove_session("one")
    await journal.remove_session("nobody")
    assert await journal.load("one") is None
    with pytest.raises(UnknownSession):
        await journal.add_step(step_row("one", 1))
    await journal.add_session(session_row("one"))
    found = await other.load("one")
    assert found is not None
    assert found.steps == ()


async def test_a_purge_removes_what_expired_before(
    journal: Journal,
    session_row: MakeSession,
    step_row: MakeStep,
    check_integrity: Callable[[str], None],
    url: str,
) -> None:
    names = {
        "expired": session_row("expired", lease_expires_at=99.0),
        "on time": session_row("on time", lease_expires_at=100.0),
        "renewed": session_row("renewed", lease_expires_at=1.0),
        "stepped": session_row("stepped", lease_expires_at=1.0),
    }
    for row in names.values():
        await journal.add_session(row)
    await journal.renew({"renewed": 101.0})
    await journal.add_step(step_row("expired", 0, lease_expires_at=99.5))
    await journal.add_step(step_row("stepped", 0, lease_expires_at=98.0))
    await journal.add_step(step_row("stepped", 1, lease_expires_at=100.5))
    assert await journal.purge(100.0) == 1
    assert await journal.load("expired") is None
    for name in ("on time", "renewed", "stepped"):
        assert await journal.load(name) is not None
    stepped = await journal.load("stepped")
    assert stepped is not None
    assert (stepped.row.lease_expires_at, len(stepped.steps)) == (100.5, 2)
    assert await journal.purge(time.time() + 60) == 3
    assert await journal.purge(time.time() + 60) == 0
    await journal.add_session(session_row("expired"))
    found = await journal.load("expired")
    assert found is not None
    assert found.steps == ()  # nothing of the one before is left
    check_integrity(url)


async def test_a_purge_goes_in_batches_between_which_others_write(
    journal: Journal,
    session_row: MakeSession,
    step_row: MakeStep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "PURGE_BATCH", 7)
    await journal.add_session(session_row("live", lease_expires_at=1_000.0))
    async with anyio.create_task_group() as group:
        for number in range(50):
            lease = 5.0 if number % 2 else 50.0
            row = session_row(f"s{number}", lease_expires_at=1.0)
            first = step_row(row.session_id, 0, lease_expires_at=lease)
            group.start_soon(journal.add_session, row, [first])
    finished: list[str] = []

    async def purge() -> None:
        assert await journal.purge(10.0) == 25
        finished.append("purge")

    async def step() -> None:
        await journal.add_step(step_row("live", 0))
        finished.append("step")

    async with anyio.create_task_group() as group:
        group.start_soon(purge)
        group.start_soon(step)
    assert finished == ["step", "purge"]
    assert await journal.purge(10.0) == 0
    assert await journal.purge(100.0) == 25
    assert await journal.load("live") is not None


async def test_a_step_that_comes_during_a_purge_is_kept_with_its_session_or_refused(
    journal: Journal, other: Journal, session_row: MakeSession, step_row: MakeStep
) -> None:
    names = [f"s{number}" for number in range(100)]
    for name in names:
        await journal.add_session(session_row(name, lease_expires_at=1.0))
    outcomes = await outcomes_of(
        lambda: other.purge(10.0),
        *[lambda name=name: journal.add_step(step_row(name, 0)) for name in names],
    )
    for name, outcome in zip(names, outcomes[1:]):
        found = await other.load(name)
        if outcome is None:
            assert found is not None
            assert len(found.steps) == 1
        else:
            assert isinstance(outcome, UnknownSession | StoreError)
            assert found is None


async def test_leases_are_measured_up_to_the_last_beat_before_the_server_began(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    async with open_journal(url) as journal:
        assert journal.alive_until == 1_000.0  # nothing is known: nothing is held against anyone
        now = 1_010.0
        await journal.beat()
        now = 1_020.0
        await journal.beat()
        assert journal.alive_until == 1_000.0
    now = 5_000.0
    async with open_journal(url) as journal:
        assert journal.alive_until == 1_020.0
    async with open_journal(url) as journal:
        assert journal.alive_until == 1_020.0  # opening is no beat
        now = 6_000.0
        await journal.beat()
    now = 5_500.0  # the clock was put back
    async with open_journal(url) as journal:
        assert journal.alive_until == 5_500.0


async def test_closing_finishes_what_was_asked_and_refuses_what_comes_later(
    url: str, session_row: MakeSession, step_row: MakeStep
) -> None:
    journal = open_journal(url)
    await journal.add_session(session_row("one"))
    outcomes: list[object] = []

    async def add(step_index: int) -> None:
        await journal.add_step(step_row("one", step_index))
        outcomes.append(step_index)

    async with anyio.create_task_group() as group:
        for step_index in range(100):
            group.start_soon(add, step_index)
        await anyio.lowlevel.checkpoint()
        group.start_soon(journal.close)
        await journal.close()
    await journal.close()
    assert sorted(map(str, outcomes)) == sorted(map(str, range(100)))
    calls: list[Callable[[], object]] = [
        lambda: journal.add_session(session_row("two")),
        lambda: journal.add_step(step_row("one", 100)),
        lambda: journal.load("one"),
        lambda: journal.renew({"one": 1.0}),
        lambda: journal.purge(1.0),
        journal.beat,
    ]
    for outcome in await outcomes_of(*calls):
        assert isinstance(outcome, StoreError)
        assert "is closed; open it again" in str(outcome)
    async with open_journal(url) as journal:
        found = await journal.load("one")
        assert found is not None
        assert len(found.steps) == 100


async def test_a_journal_from_the_future_is_refused(url: str, execute: Execute) -> None:
    await open_journal(url).close()
    execute(url, "UPDATE journal_meta SET schema_version = 2", "DROP TABLE journal_beat")
    with pytest.raises(StoreFromFuture, match=r"the journal at .* version 2 .*Upgrade") as caught:
        open_journal(url)
    assert caught.value.members == {"found": 2, "supported": 1}


async def test_a_journal_without_one_of_its_tables_is_refused(url: str, execute: Execute) -> None:
    await open_journal(url).close()
    execute(url, "DROP TABLE journal_beat")
    with pytest.raises(StoreError, match="missing tables: journal_beat"):
        open_journal(url)


async def test_a_session_with_a_hole_in_it_is_reported_and_others_are_not(
    journal: Journal, session_row: MakeSession, step_row: MakeStep, url: str, execute: Execute
) -> None:
    for name in ("one", "two"):
        await journal.add_session(session_row(name), [step_row(name, at) for at in range(3)])
    execute(
        url,
        "DELETE FROM journal_steps WHERE step_index = 1 AND session_number = "
        "(SELECT session_number FROM journal_sessions WHERE session_id = 'one')",
    )
    damaged, whole = await outcomes_of(lambda: journal.load("one"), lambda: journal.load("two"))
    assert isinstance(damaged, StoreError)
    assert "session one is damaged: it has 2 steps up to index 2, and step 1 is missing" in str(
        damaged
    )
    assert isinstance(whole, Journalled)


async def test_servers_that_begin_one_journal_together_share_it(
    url: str, session_row: MakeSession
) -> None:
    journals: list[Journal] = []

    async def begin() -> None:
        journals.append(await anyio.to_thread.run_sync(open_journal, url))

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(begin)
    await journals[0].add_session(session_row("one"))
    for journal in journals:
        assert await journal.load("one") is not None
        await journal.close()


@pytest.mark.parametrize("url", ["mysql://host/db", "journal.db", "", "sqlite+aiosqlite:///a.db"])
async def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"a journal URL looks like sqlite:///journal\.db or post"):
        open_journal(url)


def test_the_columns_are_the_fields_of_the_rows() -> None:
    assert JOURNAL.meta.name == "journal_meta"
    assert [column.name for column in steps.columns] == [
        "session_number",
        *(field.name for field in fields(StepRow)[1:]),
    ]
