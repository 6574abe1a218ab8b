"""Messages between an examined notebook and its examiner: a length, then plain data.

Both ends use these two functions. Neither trusts what comes: a message has a largest
size and a latest time, and is plain data or refused.
"""

import socket
import struct
import time
from typing import Any

from .plain import LARGEST, dump, load

_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 20


class BrokenOffError(Exception):
    """The other side is gone, too slow, or does not speak plain data."""


def send(connection: socket.socket, message: Any) -> None:
    """Send one message of plain data."""
    data = dump(message).encode("ascii")
    try:
        connection.sendall(_LENGTH.pack(len(data)) + data)
    except OSError as problem:
        raise BrokenOffError(f"the other side does not listen: {problem}") from None


def receive(connection: socket.socket, seconds: float | None = None) -> Any:
    """The next message, if it is whole within so many seconds; None waits for ever."""
    until = None if seconds is None else time.monotonic() + seconds
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size, until))
    if length > LARGEST:
        raise BrokenOffError(f"a message of {length:,} bytes is too long")
    try:
        # Bytes that are no ASCII are a ValueError, too; and so are all others by load.
        return load(_read(connection, length, until).decode("ascii"))
    except ValueError as problem:
        raise BrokenOffError(str(problem)[:200]) from None


def _read(connection: socket.socket, size: int, until: float | None) -> bytes:
    # Grown by what came, so that a length alone reserves no memory.
    data = bytearray()
    while len(data) < size:
        if until is not None:
            # The whole message has a deadline: drops of a byte each do not extend it.
            connection.settimeout(max(until - time.monotonic(), 0.001))
        try:
            chunk = connection.recv(min(_CHUNK, size - len(data)))
        except TimeoutError:
            raise BrokenOffError("no answer in time") from None
        except OSError as problem:
            raise BrokenOffError(f"the other side is gone: {problem}") from None
        if not chunk:
            raise BrokenOffError("the other side is gone")
        data += chunk
    connection.settimeout(None)
    return bytes(data)
