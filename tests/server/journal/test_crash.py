"""What a server acknowledged outlives it, however it ends."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from steppo_server.journal import open_journal

pytestmark = pytest.mark.anyio

NUM_KILLS = 20
LIMIT_S = 40.0

# Forks a server for each line that it reads, so that the imports are paid for once.
_SERVERS = """
import asyncio, os, sys
from steppo_server.journal import SessionRow, StepRow, open_journal

def say(line):
    os.write(1, f"{line}\\n".encode())  # in one piece, wherever the kill falls

async def play(journal, session_id):
    row = SessionRow(session_id, "me", "f", b"{}", "v", "t", "k", 1.0, 1e12, 0.0)
    await journal.add_session(row)
    say(f"{session_id} -1")
    for index in range(1_000_000):
        step = StepRow(session_id, index, session_id.encode() * 50, "a", "t", False, False, 1e12)
        await journal.add_step(step)
        say(f"{session_id} {index}")

async def serve(name):
    async with open_journal(sys.argv[1]) as journal:
        say(f"{os.getpid()}")
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(play(journal, f"{name}-{number}"))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(serve(line.strip()))
    _, status = os.waitpid(child, 0)
    say(f"ended {os.waitstatus_to_exitcode(status)}")
"""


Process = subprocess.Popen[str]


@contextmanager
def running(script: str, *arguments: str, before: Sequence[str] = ()) -> Iterator[Process]:
    """Run a script; yield its process, which is killed when it takes too long."""
    process = subprocess.Popen(
        [*before, sys.executable, "-W", "error", "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(LIMIT_S, process.kill)
    watchdog.start()
    try:
        with process:
            yield process
    finally:
        watchdog.cancel()


def killed_while_writing(process: Process, name: str, after_s: float) -> list[tuple[str, int]]:
    """Kill a server so many seconds after its first acknowledgement; return all of them."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    server = int(process.stdout.readline())
    lines = [process.stdout.readline()]
    killer = threading.Timer(after_s, os.kill, [server, signal.SIGKILL])
    killer.start()
    for line in process.stdout:
        if line.startswith("ended"):
            assert line == f"ended -{signal.SIGKILL.value}\n"
            break
        lines.append(line)
    killer.join()
    return [(session_id, int(index)) for session_id, index in map(str.split, lines)]


async def test_what_was_acknowledged_survives_a_kill_at_any_moment(
    url: str, check_integrity: Callable[[str], None]
) -> None:
    moments = random.Random(20)
    acknowledged: dict[str, int] = {}
    with running(_SERVERS, url) as process:
        for number in range(NUM_KILLS):
            seen = killed_while_writing(process, f"k{number}", moments.uniform(0.0, 0.05))
            for session_id, index in seen:
                acknowledged[session_id] = max(index, acknowledged.get(session_id, -1))
            check_integrity(url)
        process.communicate(timeout=LIMIT_S)
    async with open_journal(url) as journal:
        for session_id, last in acknowledged.items():
            found = await journal.load(session_id)
            assert found is not None
            # At most the one that was in flight is there without an acknowledgement.
            assert last + 1 <= len(found.steps) <= last + 2
            assert all(step.action == session_id.encode() * 50 for step in found.steps)
    check_integrity(url)
    assert len(acknowledged) >= NUM_KILLS
    assert sum(acknowledged.values()) > NUM_KILLS


# Writes until the disk takes no more, then goes on when it does again.
_ON_A_SMALL_DISK = """
import asyncio, resource, sys
from steppo_env.errors import StoreError
from steppo_server.journal import SessionRow, StepRow, open_journal

def allow(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

def step(index):
    return StepRow("one", index, bytes(20_000), "a", "t", False, False, 1e12)

async def main():
    async with open_journal(sys.argv[1]) as journal:
        await journal.add_session(SessionRow("one", "me", "f", b"{}", "v", "t", "k", 1.0, 1e12, 0.0))
        allow(1_000_000)
        for index in range(1_000):
            try:
                await journal.add_step(step(index))
            except StoreError as error:
                print(error, flush=True)
                break
        found = await journal.load("one")
        assert len(found.steps) == index
        allow(resource.RLIM_INFINITY)
        await journal.add_step(step(index))
        print(index + 1)

asyncio.run(main())
"""


async def test_a_full_disk_is_reported_and_what_was_acknowledged_is_kept(
    tmp_path: Path, check_integrity: Callable[[str], None]
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    with running(_ON_A_SMALL_DISK, url) as process:
        stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    message, num_steps = stdout.splitlines()
    assert message.startswith(f"cannot write to the journal at {tmp_path}/journal.db: the disk")
    check_integrity(url)
    async with open_journal(url) as journal:
        found = await journal.load("one")
        assert found is not None
        assert len(found.steps) == int(num_steps) > 10


_REFUSED = """
import sys
from steppo_env.errors import StoreError
from steppo_server.journal import open_journal
try:
    open_journal(sys.argv[1])
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_read_only_place_is_refused(tmp_path: Path, is_begun: bool) -> None:
    path = tmp_path / "folder" / "journal.db"
    path.parent.mkdir()
    before: list[str] = []
    if os.geteuid() == 0:  # nothing is read-only to root, unless it gives that right up
        if shutil.which("setpriv") is None:
            pytest.skip("nothing is read-only to root, and there is no setpriv")
        before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    if is_begun:
        await open_journal(f"sqlite:///{path}").close()
        path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with running(_REFUSED, f"sqlite:///{path}", before=before) as process:
            stdout, _ = process.communicate(timeout=LIMIT_S)
    finally:
        path.parent.chmod(0o700)
    assert process.returncode == 0
    assert "journal at" in stdout
    assert "read-only" in stdout
