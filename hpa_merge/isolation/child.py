"""A child process as its parent sees it: calls with limits, and an end."""

import json
import pickle
import signal
import socket
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import hpa_merge.errors
from hpa_merge.errors import HPAError
from hpa_merge.isolation import keeping, messages

__all__ = ["Child", "Limits", "Stopped"]

ANSWER = 2**32
"""The most bytes of an answer: 4 GiB."""

SLICE = 0.5
"""Seconds to wait at a time. If the parent is stopped meanwhile, by Ctrl-Z, at most this much counts as waiting."""

FAREWELL = 10.0
"""Seconds that the host may take to say how a child ended."""


@final
@dataclass(frozen=True)
class Limits:
    """Limits of one call.

    Attributes:
        computing: seconds of computing, summed over all threads.
        waiting: seconds in all, for calls that wait and do not compute.
    """

    computing: float
    waiting: float


class Stopped(Exception):
    """A child reached its limits, or a library crashed in it; the text says which, as a clause: ``it takes more …``."""


class InChild(Exception):
    """Where an error was raised in a child: its traceback there."""

    def __str__(self) -> str:
        return f"in a child process\n{super().__str__()}"


@final
class Child:
    """A process in which methods of one object of ours run; for one thread."""

    def __init__(self, service: str, memory: int, together: int = 1) -> None:
        """Start it; returns at once.

        Args:
            service: the object's class, ``module:class``. A method returns a value that JSON can hold, and bytes.
            memory: bytes that it may take.
            together: number of children that are started at the same time and share the free memory, this one included.
        """
        self._memory = memory
        self._pending: Limits | None = None
        self._over: Stopped | None = None
        self._channel, theirs = socket.socketpair()
        self._lifeline, kept = socket.socketpair()
        try:
            keeping.enter(service)
        except OSError as error:
            self._over = Stopped(f"no process can be started for it: {error.strerror}")
        self.close = weakref.finalize(self, _close, self._channel, self._lifeline, entered=self._over is None)
        with theirs, kept:
            keeping.request(service, theirs, kept)
        with suppress(OSError):  # the first call raises the error
            messages.send(self._channel, pickle.dumps((Path.cwd(), memory, together)))

    def call(self, method: str, *arguments: object, limits: Limits) -> tuple[Any, bytearray]:
        """Call a method of the object, and return its result.

        Raises:
            HPAError: as the method does; the cause is an :class:`InChild`.
            Stopped: it reached its limits or crashed. The child is gone, and further calls raise this too.
            RuntimeError: any other exception of the method, described.
        """
        self.begin(method, *arguments, limits=limits)
        return self.finish()

    def begin(self, method: str, *arguments: object, limits: Limits) -> None:
        """Start a :meth:`call` without waiting for its result; the arguments should be small."""
        assert self._pending is None
        self._pending = limits
        with suppress(OSError):  # the child is gone, and finish says why
            self._channel.settimeout(limits.waiting)
            messages.send(self._channel, pickle.dumps((method, arguments, limits.computing)))

    def finish(self) -> tuple[Any, bytearray]:
        """The result of the call that was started; raises as :meth:`call`."""
        assert self._pending is not None
        limits, self._pending = self._pending, None
        if self._over is not None:
            raise self._over
        patience = _Patience(self._channel, limits.waiting)
        try:
            text, data = messages.receive(patience.fill, ANSWER)
            answer = json.loads(text)
        except TimeoutError:
            raise self._stop(f"it does not come to an end within {limits.waiting:g} seconds") from None
        except (messages.Closed, OSError):
            raise self._stop(self._how_it_ended(limits)) from None
        except ValueError:
            raise self._stop(f"its result takes more than {_size(ANSWER)}") from None
        if "value" in answer:
            return answer["value"], data
        if "memory" in answer:
            raise self._stop(f"it takes more than {_size(answer['memory'])} of memory")
        kind = getattr(hpa_merge.errors, str(answer["kind"]), RuntimeError)
        error: Exception = kind(answer["error"]) if issubclass(kind, HPAError) else RuntimeError(answer["error"])
        raise error from InChild(answer["trace"])

    def _stop(self, reason: str) -> Stopped:
        self.close()
        self._over = Stopped(reason)
        return self._over

    def _how_it_ended(self, limits: Limits) -> str:
        """Why the child is gone, according to its host."""
        patience = _Patience(self._lifeline, FAREWELL)
        buffer = memoryview(bytearray(16))
        try:
            status = int(bytes(buffer[: patience.fill(buffer)]))
        except (OSError, ValueError):
            return "its process was ended from outside"
        match -status:
            case signal.SIGPROF:
                return f"it does not come to an end within {limits.computing:g} seconds of computing"
            case signal.SIGKILL:
                return "its process was killed, as the system does where memory is full"
            case signal.SIGABRT:
                return f"it takes more than {_size(self._memory)} of memory, or breaks a library (SIGABRT)"
            case number if number in set(signal.Signals):
                return f"it breaks a library ({signal.Signals(number).name})"
        return f"its process ended with status {status}"


@final
class _Patience:
    """Waits for data from a socket, for so many seconds in all."""

    def __init__(self, channel: socket.socket, seconds: float) -> None:
        self._channel = channel
        self._left = seconds

    def fill(self, buffer: memoryview) -> int:
        """Fill the beginning of the buffer, and return the number of bytes; raises TimeoutError if nothing comes."""
        while True:
            self._channel.settimeout(min(SLICE, self._left))
            try:
                return self._channel.recv_into(buffer)
            except TimeoutError:
                self._left -= SLICE
                if self._left <= 0:
                    raise


def _close(channel: socket.socket, lifeline: socket.socket, *, entered: bool) -> None:
    """End a child: its host kills it when this end of the lifeline is closed."""
    channel.close()
    lifeline.close()
    if entered:
        keeping.leave()


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
