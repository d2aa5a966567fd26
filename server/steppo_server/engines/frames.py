"""Messages between the server and a process of its own: pickles with their length before them.

Only ever between a process and its parent, over a socket that nobody else can reach.
"""

import pickle
import struct
from typing import BinaryIO

__all__ = ["frame", "read_frame", "split_frame"]

_LENGTH = struct.Struct("!Q")


def frame(message: object) -> bytes:
    """Return a message as bytes that can stand in a stream."""
    payload = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(payload)) + payload


def split_frame(buffer: bytearray) -> bytes | None:
    """Take the first whole message off a buffer and return its pickle; None when none is whole."""
    if len(buffer) < _LENGTH.size:
        return None
    (num_bytes,) = _LENGTH.unpack_from(buffer)
    end = _LENGTH.size + num_bytes
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view:
        payload = bytes(view[_LENGTH.size : end])
    del buffer[:end]
    return payload


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the pickle of the next message of a stream; None at its end, whole or not."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (num_bytes,) = _LENGTH.unpack(head)
    payload = stream.read(num_bytes)
    return payload if len(payload) == num_bytes else None
