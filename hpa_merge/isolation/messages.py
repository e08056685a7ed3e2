"""The messages of a parent and its child: a text and some bytes, after the lengths of both."""

import socket
import struct
from collections.abc import Callable

__all__ = ["Closed", "receive", "send"]

_LENGTHS = struct.Struct("!QQ")

Receive = Callable[[memoryview], int]
"""Fills the beginning of a buffer and returns the number of bytes; 0 at the end."""


class Closed(Exception):
    """The other end is gone."""


def send(channel: socket.socket, text: bytes, data: bytes = b"") -> None:
    """Send one message.

    Raises:
        OSError: the other end is gone.
    """
    channel.sendall(_LENGTHS.pack(len(text), len(data)) + text)
    channel.sendall(data)


def receive(fill: Receive, most: int) -> tuple[bytes, bytearray]:
    """The next message.

    Args:
        most: the most bytes that it may have.

    Raises:
        Closed: the other end is gone, in the middle of a message or not.
        ValueError: the message is longer.
    """
    lengths: tuple[int, int] = _LENGTHS.unpack(_exactly(fill, _LENGTHS.size))
    if sum(lengths) > most:
        raise ValueError(f"a message of {sum(lengths)} bytes")
    return bytes(_exactly(fill, lengths[0])), _exactly(fill, lengths[1])


def _exactly(fill: Receive, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = fill(view)
        if not count:
            raise Closed
        view = view[count:]
    return buffer
