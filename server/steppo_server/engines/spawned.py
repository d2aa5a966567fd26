"""The server's end of a process that runs an EnvHost: starts it, asks it, ends it."""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread

from steppo_env.catalogue import Catalogue
from steppo_env.errors import EnvError, boundary
from steppo_server.engines.frames import frame, split_frame
from steppo_server.logs import LogFormat

__all__ = ["HostLost", "SpawnedHost"]

PROGRAM = (
    # The path first: which plugins there are is looked up when steppo_env is imported.
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from steppo_server.engines.child import main; main()"
)
READ_BYTES = 262_144
UNPICKLE_INLINE_BYTES = 262_144
"""Longer answers are unpickled off the event loop."""
REAP_EVERY_S = 0.02
MAX_REAPS = 250


class HostLost(ConnectionError):
    """The process ended, or closed its end, before it answered."""


class SpawnedHost:
    """A process that runs an EnvHost. One call at a time; every method is called on the event loop.

    The process is a fresh interpreter (never a fork: the server has threads) in a process group of its
    own, so that Ctrl-C reaches only the server and what the process started is killed with it.

    Args:
        catalogue: What the host offers; pickled.
        env_names: What is loaded before the process says that it is ready.
        on_lost: Called once when the process ends by itself.
        log_format: How its lines on stderr look.

    Raises:
        OSError: The machine has no room for another process.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        env_names: tuple[str, ...],
        on_lost: Callable[[], None],
        log_format: LogFormat = LogFormat.TEXT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._started = anyio.Event()
        self._received = bytearray()
        self._reply: asyncio.Future[bytes] | None = None
        self._is_lost = False
        self.has_been_ready = False
        self.started_at = time.monotonic()
        self._socket, self._lifeline, self._process = _start(catalogue, env_names, log_format)
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with; negative for a signal, None while it has not been waited for."""
        return self._process.poll()

    @property
    def is_ready(self) -> bool:
        """True while the process takes calls."""
        return self.has_been_ready and not self._is_lost

    async def started(self) -> bool:
        """Wait until the process is ready; return False when it ended instead."""
        await self._started.wait()
        return self.is_ready

    async def ask(self, method: str, args: tuple[Any, ...]) -> tuple[bool, Any]:
        """Run a method of the host.

        When this is cancelled, the process is still at it and can only be killed.

        Returns:
            True and the result, or False and the error that the method raised.

        Raises:
            HostLost: The process ended before it answered.
            EnvError: What it answered cannot be read here.
        """
        if self._is_lost:
            raise HostLost
        self._reply = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._socket, frame((method, args)))
            payload = await self._reply
        except OSError as error:
            self._lose()
            raise HostLost from error
        finally:
            self._reply = None
            if self._is_lost:
                self._socket.close()
        with boundary(EnvError, f"reading the answer of {method}"):
            if len(payload) <= UNPICKLE_INLINE_BYTES:
                return _answer(payload)
            return await anyio.to_thread.run_sync(_answer, payload)

    def kill(self) -> None:
        """End the process and all that it started at once, whatever it does."""
        self._on_lost = _ignore
        self._lose()

    async def end(self, deadline_s: float) -> None:
        """Let the process close its episodes and end; kill it after `deadline_s` seconds.

        One that is not ready yet has no episodes and is killed at once.
        """
        self._on_lost = _ignore
        if self.has_been_ready and not self._is_lost:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            with suppress(subprocess.TimeoutExpired):
                await anyio.to_thread.run_sync(self._process.wait, deadline_s)
        self.kill()
        await self.ended(deadline_s)

    async def ended(self, deadline_s: float) -> None:
        """Wait until a process that was killed or died is no more."""
        with suppress(subprocess.TimeoutExpired):
            await anyio.to_thread.run_sync(self._process.wait, deadline_s)

    def _on_readable(self) -> None:
        try:
            received = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._lose()
            return
        self._received += received
        while (payload := split_frame(self._received)) is not None:
            if not self.has_been_ready:
                self.has_been_ready = True
                self._started.set()
            elif self._reply is not None and not self._reply.done():
                self._reply.set_result(payload)

    def _lose(self) -> None:
        """Kill what is left of the process, once, and tell everybody who waits for it."""
        if self._is_lost:
            return
        self._is_lost = True
        self._loop.remove_reader(self._socket)
        # Before the process is waited for: until then its number cannot be another's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._lifeline)
        if self._reply is None:
            self._socket.close()
        else:  # still used for sending, which fails now
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._reply.done():
                self._reply.set_exception(HostLost())
                self._reply.exception()  # a sender that fails first never asks for it
        self._started.set()
        self._reap(MAX_REAPS)
        self._on_lost()

    def _reap(self, num_left: int) -> None:
        """Leave no zombie: it ends within milliseconds."""
        if self._process.poll() is None and num_left:
            self._loop.call_later(REAP_EVERY_S, self._reap, num_left - 1)


def _start(
    catalogue: Catalogue, env_names: tuple[str, ...], log_format: LogFormat
) -> tuple[socket.socket, int, "subprocess.Popen[bytes]"]:
    """Start the process; return the socket to it, the end of its lifeline, and its handle."""
    ours, theirs = socket.socketpair()
    lifeline, held = os.pipe()
    try:
        # A file, because a pipe would have to be filled while nobody reads it yet.
        with theirs, tempfile.TemporaryFile() as setup:
            pickle.dump(sys.path, setup)
            pickle.dump((catalogue, env_names, log_format), setup)
            setup.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), str(lifeline)],
                stdin=setup,
                stdout=2,  # the server's standard output is for its address alone
                pass_fds=(theirs.fileno(), lifeline),
                process_group=0,
            )
    except BaseException:
        ours.close()
        os.close(held)
        raise
    finally:
        os.close(lifeline)
    ours.setblocking(False)
    return ours, held, process


def _answer(payload: bytes) -> tuple[bool, Any]:
    answer: tuple[bool, Any] = pickle.loads(payload)
    return answer


def _ignore() -> None:
    """Tell nobody."""
