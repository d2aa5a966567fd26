"""Groups and forks: sessions that share a task and a seed, or the beginning of an episode."""

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import anyio
from pydantic_core import from_json

from steppo_env.errors import EnvError, InvalidInput, SteppoError
from steppo_env.keys import digest
from steppo_env.wire import CreateGroup, CreateSession, ForkRequest
from steppo_server.revival import episode_start
from steppo_server.session import Session, key_of
from steppo_server.sessions import SessionManager

__all__ = ["create_group", "fork_session"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Made = tuple[bytes, bool] | SteppoError
"""What came of one member: its reply and whether it is new, or why there is none."""


async def create_group(manager: SessionManager, owner: str, request: CreateGroup) -> bytes:
    """Begin several episodes of one task and seed and return a GroupReply.

    The ids are the group's and a number: with a client-chosen `group_id` the same request again gets
    the same sessions.

    Raises:
        EnvError: The episodes did not begin alike; none that this request made is left.
        SteppoError: Some could not be made; none that this request made is left.
    """
    group_id = request.group_id or secrets.token_hex(16)
    shared = request.model_dump(exclude={"group_id", "size"})
    members = [
        CreateSession.model_validate({**shared, "session_id": f"{group_id}.{place}"})
        for place in range(request.size)
    ]
    made = await _all(members, lambda member: manager.make(owner, member, group_id))
    keys = {from_json(item[0])["trace_key"] for item in made if isinstance(item, tuple)}
    failure = _failure(made)
    if failure is None and len(keys) > 1:
        failure = EnvError(
            f"{request.env_id} began {len(keys)} different episodes of one task and seed",
            trainable=False,
        )
    if failure is not None:
        await _undo(manager, owner, group_id, made)
        raise failure
    return _family(made, group_id=group_id, trace_key=keys.pop())


async def fork_session(
    manager: SessionManager, owner: str, session_id: str, request: ForkRequest
) -> bytes:
    """Begin episodes that share the past of a session and return a ForkReply.

    They continue from a snapshot where the environment has one of the step in question, else their
    beginning is replayed; either way the trace key must come out as the parent's was.

    Raises:
        InvalidInput: The session has not so many steps, or that step failed.
        ReplayDiverged: The past did not come out as it was.
        UnknownSession, SessionExpired, SessionExists, CapacityExceeded, EnvError: As they say.
            None that this request made is left.
    """
    fork_id = request.fork_id or secrets.token_hex(16)
    async with manager.using(owner, session_id) as parent:
        journalled = await manager.homes.journalled(parent)
        played = [step for step in journalled.steps if step.problem is None]
        at_step = request.at_step
        if at_step is None and request.fork_id is not None:
            at_step = await _forked_at(manager, parent, key_of(owner, f"{fork_id}.0"))
        if at_step is None:
            at_step = len(played)
        if at_step > len(played):
            raise InvalidInput(
                f"session {session_id} can be forked at steps 0 to {len(played)}, not {at_step}"
            )
        # A failed step counts as one, so that after it this is never so.
        is_now = at_step == parent.num_steps == len(journalled.steps)
        snapshot = await _snapshot(manager, parent) if is_now else None
        start = replace(episode_start(parent.key, journalled, at_step), snapshot=snapshot)
        trace_key = played[at_step - 1].trace_key if at_step else journalled.row.trace_key
    row = journalled.row
    fingerprint = digest(["fork", parent.key, at_step])

    async def fork(place: int) -> tuple[bytes, bool]:
        key = key_of(owner, f"{fork_id}.{place}")
        created_at = time.time()
        until = created_at + row.lease_s
        steps = [replace(step, session_id=key, lease_expires_at=until) for step in played[:at_step]]
        own = replace(
            row,
            session_id=key,
            fingerprint=fingerprint,
            created_at=created_at,
            lease_expires_at=until,
            group_id=None,
            parent_id=parent.key,
            parent_step=at_step,
        )
        return await manager.adopt(
            own, steps, replace(start, key=key, session_id=f"{fork_id}.{place}")
        )

    made = await _all(range(request.count), fork)
    failure = _failure(made)
    if failure is not None:
        await _undo(manager, owner, fork_id, made)
        raise failure
    return _family(
        made, parent_id=session_id, at_step=at_step, fork_id=fork_id, trace_key=trace_key
    )


async def _forked_at(manager: SessionManager, parent: Session, key: str) -> int | None:
    """Return where an earlier request under this id forked the parent, however far it is now."""
    journalled = await manager.journal.load(key)
    if journalled is None or journalled.row.parent_id != parent.key:
        return None
    return journalled.row.parent_step


async def _snapshot(manager: SessionManager, parent: Session) -> bytes | None:
    return await manager.homes.ask(
        parent,
        lambda worker, deadline_s: worker.call("snapshot", parent.key, deadline_s=deadline_s),
    )


async def _all(
    items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[ResultT]]
) -> list[ResultT | SteppoError]:
    """Do the work for all items side by side; return results and errors in their order."""
    results: list[ResultT | SteppoError | None] = [None] * len(items)

    async def run(place: int, item: ItemT) -> None:
        try:
            results[place] = await work(item)
        except SteppoError as error:
            results[place] = error

    async with anyio.create_task_group() as group:
        for place, item in enumerate(items):
            group.start_soon(run, place, item)
    return cast(list[ResultT | SteppoError], results)


def _failure(made: Iterable[Made]) -> SteppoError | None:
    return next((item for item in made if isinstance(item, SteppoError)), None)


async def _undo(manager: SessionManager, owner: str, family_id: str, made: Sequence[Made]) -> None:
    """Close the members that this request made, and none that an earlier one did."""
    places = [place for place, item in enumerate(made) if isinstance(item, tuple) and item[1]]
    await _all(places, lambda place: manager.delete(owner, f"{family_id}.{place}"))


def _family(made: Sequence[Made], **members: str | int) -> bytes:
    """Return a reply that holds others, which are JSON already."""
    sessions = b",".join(item[0] for item in made if isinstance(item, tuple))
    return b'%s,"sessions":[%s]}' % (json.dumps(members).encode()[:-1], sessions)
