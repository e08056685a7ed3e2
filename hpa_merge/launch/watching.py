"""Each process knows at once when another one has ended: by a connection between rank 0 and every other rank.

The kernel closes the connections of a process that ends, however it ends. An exchange over NCCL would wait for it. A
machine that loses its power, or its network, closes nothing, and is noticed because it no longer answers.
"""

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol, final

from hpa_merge.errors import RankError
from hpa_merge.launch.environment import Place

__all__ = ["Board", "Peers"]

TOKEN = 16
"""Bytes that a process shows, so that nobody else can join."""

GREETING = TOKEN + 4
"""The token and the rank."""

LEAVING = b"\0\0\0\0\0"
"""What a process sends before it ends as planned."""

NEWS = 5
"""Bytes of a message: one that says what has happened, and a rank."""

LOST, TOLD = b"L", b"T"
"""A rank has ended without a word; the user knows why the run ends. A rank, or an exit status, follows."""

SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""After how many seconds a connection is tried, how often, and how many times: 30 seconds in all."""


class Board(Protocol):
    """Where processes leave notes for each other; the store of torch.distributed is one."""

    def get(self, key: str) -> bytes:
        """The note, once it is there."""

    def set(self, key: str, value: str) -> None:
        """Leave a note."""


@final
class Peers:
    """The connections of this process. :attr:`on_end` is called in a thread when another process ends the run.

    Attributes:
        on_end: called once, without arguments.
        lost: the rank that has ended without a word; None if there is none.
        told: the exit status of the run, if another rank has told the user why it ends; otherwise None.
    """

    def __init__(self, place: Place, board: Board, seconds: float) -> None:
        """Connect, and start to watch.

        Raises:
            RankError: not all processes have come within so many seconds.
        """
        self.on_end: Callable[[], None] = lambda: None
        self.lost: int | None = None
        self.told: int | None = None
        self._place, self._over = place, threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        try:
            self._sockets = _gather(place, board, seconds) if place.first else _reach(place, board, seconds)
        except (OSError, ValueError, RuntimeError) as error:
            raise RankError(
                f"process {place.rank + 1} of {place.size} does not reach the others at {place.address} "
                f"({_reason(error)}): check that all {place.size} were started, and that a firewall lets them connect."
            ) from error
        self._thread = threading.Thread(target=self._watch, name="watching the other processes", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until another process has ended the run, for so long; returns whether one has."""
        return self._ended.wait(seconds)

    def tell(self, status: int) -> None:
        """Tell the others that the user knows why the run ends, and its exit status. Never raises."""
        self._tell(TOLD + status.to_bytes(4))

    def close(self) -> None:
        """End as planned. Never raises, and may be called twice."""
        self._over.set()
        self._tell(LEAVING)
        self._thread.join(1.0)
        with self._lock:
            for each in self._sockets.values():
                each.close()
            self._sockets.clear()

    def _tell(self, news: bytes, but: int | None = None) -> None:
        with self._lock:
            for rank, each in self._sockets.items():
                if rank != but:
                    with contextlib.suppress(OSError):
                        each.sendall(news)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, each in self._sockets.items():
                selector.register(each, selectors.EVENT_READ, rank)
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(0.2):
                    news = _read(key.fileobj)  # type: ignore[arg-type]
                    if news == LEAVING:
                        selector.unregister(key.fileobj)
                    else:
                        self._end(news or LOST + key.data.to_bytes(4), key.data)
                        return

    def _end(self, news: bytes, sender: int) -> None:
        """Note why the run ends, and pass it on: rank 0 is the only one that is connected to all."""
        if self._over.is_set():
            return
        if news[:1] == TOLD:
            self.told = int.from_bytes(news[1:])
        else:
            self.lost = int.from_bytes(news[1:])
        if self._place.first:
            self._tell(news, but=sender)
        self._ended.set()
        self.on_end()


def _read(connection: socket.socket) -> bytes:
    """A message; empty if the other end is gone."""
    news = b""
    with contextlib.suppress(OSError):
        while len(news) < NEWS and (more := connection.recv(NEWS - len(news))):
            news += more
    return news if len(news) == NEWS else b""


def _gather(place: Place, board: Board, seconds: float) -> dict[int, socket.socket]:
    """The connections of rank 0, by rank; a stranger's is closed."""
    found: dict[int, socket.socket] = {}
    token, end = secrets.token_bytes(TOKEN), time.monotonic() + seconds
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.create_server(
        ("", 0), family=family, backlog=place.size, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        board.set("watching", f"{server.getsockname()[1]} {token.hex()}")
        while len(found) < place.size - 1:
            server.settimeout(max(0.001, end - time.monotonic()))
            connection, _ = server.accept()
            connection.settimeout(5.0)
            greeting = b""
            with contextlib.suppress(OSError):
                while len(greeting) < GREETING and (more := connection.recv(GREETING - len(greeting))):
                    greeting += more
            rank = int.from_bytes(greeting[TOKEN:])
            if len(greeting) < GREETING or not hmac.compare_digest(greeting[:TOKEN], token) or rank in found:
                connection.close()
                continue
            found[rank] = _kept(connection)
    return found


def _reach(place: Place, board: Board, seconds: float) -> dict[int, socket.socket]:
    """The connection to rank 0."""
    port, token = board.get("watching").decode().split()
    connection = socket.create_connection((place.address, int(port)), timeout=seconds)
    connection.sendall(bytes.fromhex(token) + place.rank.to_bytes(4))
    return {0: _kept(connection)}


def _kept(connection: socket.socket) -> socket.socket:
    """A connection that notices when the other machine no longer answers."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in SILENCE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return connection


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
