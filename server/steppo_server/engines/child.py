"""The program of a worker's process: an EnvHost that is asked over a socket.

Started by `spawned.SpawnedHost` with two file descriptors as arguments: the socket, and the read end of
a pipe of which the server holds the other end for as long as it lives. Standard input has what the host
is made of, after the path that modules are imported from.
"""

import fcntl
import logging
import os
import pickle
import signal
import socket
import sys
from threading import Thread
from typing import BinaryIO

from steppo_env.catalogue import Catalogue
from steppo_env.errors import CapacityExceeded, EnvError, SteppoError
from steppo_server.engines.frames import frame, read_frame
from steppo_server.engines.protocol import perform
from steppo_server.host import EnvHost
from steppo_server.logs import JsonFormatter, LogFormat
from steppo_server.memory import collect_rarely

__all__ = ["main"]

logger = logging.getLogger("steppo.server")


def main() -> None:
    """Serve a host until the server closes the socket, or is no more."""
    # Ctrl-C is for the server, which ends its processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel, lifeline = (int(number) for number in sys.argv[1:3])
    _die_with(lifeline)
    catalogue, env_names, log_format = pickle.load(sys.stdin.buffer)
    _log_as(log_format)
    _leave_stdin()
    with socket.socket(fileno=channel) as server, server.makefile("rb") as requests:
        _serve(server, requests, catalogue, env_names)


def _log_as(log_format: LogFormat) -> None:
    text = logging.Formatter(f"%(levelname)s [{os.getpid()}] %(name)s: %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else text)
    logging.basicConfig(handlers=[handler])


def _die_with(lifeline: int) -> None:
    """Arrange to be killed when the server is no more, also in the middle of a call."""
    if sys.platform == "linux":
        # The kernel does it, also while code hangs that holds the interpreter's lock.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    def watch() -> None:
        os.read(lifeline, 1)  # returns when nobody holds the other end any more
        os._exit(1)

    # On other systems, and when the server ended before the lines above.
    Thread(target=watch, name="steppo-lifeline", daemon=True).start()


def _leave_stdin() -> None:
    """Leave environments an empty standard input."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)


def _serve(
    server: socket.socket, requests: BinaryIO, catalogue: Catalogue, env_names: tuple[str, ...]
) -> None:
    host = EnvHost(catalogue)
    host.warm(env_names)
    collect_rarely()
    server.sendall(frame(None))  # ready
    while (payload := read_frame(requests)) is not None:
        server.sendall(_answer(host, payload))
    host.close_all()


def _answer(host: EnvHost, payload: bytes) -> bytes:
    method, args = pickle.loads(payload)
    try:
        result = perform(host, method, args)
    except SteppoError as error:
        if error.status >= 500 and not isinstance(error, CapacityExceeded):
            logger.exception("%s", method)  # here, because a traceback does not pickle
        return _framed(method, (False, error))
    return _framed(method, (True, result))


def _framed(method: str, answer: tuple[bool, object]) -> bytes:
    try:
        return frame(answer)
    except Exception as error:  # such as an error with members that do not pickle
        logger.exception("the answer of %s cannot be sent", method)
        return frame((False, EnvError(f"the answer of {method} cannot be sent: {error}")))
