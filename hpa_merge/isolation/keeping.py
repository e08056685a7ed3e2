"""When there is a host: while a child lives, or somebody keeps it.

A host is a fresh process that imports the libraries itself, which takes some seconds on another core. If this process
has only just started, as the command has, it imports them and forks the host, which costs nothing. A process that has
computed cannot do that, because its threads and its use of a GPU do not survive a fork.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import final

from hpa_merge.isolation import host

__all__ = ["enter", "kept", "leave", "request"]

ENDING = 5.0
"""Seconds that a host may take to end before it is killed; it needs milliseconds."""

_COMPUTING = "torch"
"""The library that must not have computed, or touched a GPU, before a fork; so it must not be imported."""


@final
class _Host:
    """The host as its parent sees it."""

    def __init__(self, service: str | None, silent: bool) -> None:
        """``service``: imported before the host is forked from this process; None if it cannot be forked."""
        self._parent = os.getpid()
        if service is not None:
            importlib.import_module(service.partition(":")[0])
        self.control, theirs = socket.socketpair()
        try:
            self._wait = (_spawned if service is None else _forked)(theirs, silent)
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()

    @property
    def ours(self) -> bool:
        """Whether this process made it, not a process that this one was forked from."""
        return self._parent == os.getpid()

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        poll = select.poll()
        poll.register(self.control, 0)
        return not poll.poll(0)

    def close(self) -> None:
        """Let it end, and wait for its end."""
        self.control.close()
        if self.ours:
            self._wait()


_lock = threading.RLock()
_host: _Host | None = None
_users = 0


@contextmanager
def kept(service: str, *, beginning: bool = False, silent: bool = True) -> Iterator[None]:
    """Within the block there is a host, so that children start at once.

    Args:
        service: the service of the expected children, ``module:class``; it is imported now.
        beginning: whether this process has only just started: no thread holds a lock, and nothing was computed.
        silent: drop the output of libraries in the host and in children.
    """
    try:
        enter(service, beginning=beginning, silent=silent)
    except OSError:  # no process can be started; a child raises the error when it is needed
        yield
        return
    try:
        yield
    finally:
        leave()


def enter(service: str, *, beginning: bool = False, silent: bool = True) -> None:
    """Have a host that imports ``service`` until :func:`leave`; the arguments are those of :func:`kept`."""
    global _host, _users
    with _lock:
        if _host is not None and not (_host.ours and _host.alive):
            gone, _host = _host, None  # first, because the closing may be interrupted
            _users = _users if gone.ours else 0
            gone.close()
        if _host is None:
            forking = beginning and sys.platform == "linux" and _COMPUTING not in sys.modules
            _host = _Host(service if forking else None, silent)
        _users += 1
        request(service)


def leave() -> None:
    """Let the host end if nobody else needs it."""
    global _host, _users
    with _lock:
        if _host is None or not _host.ours:
            return
        _users -= 1
        if not _users:
            unused, _host = _host, None
            unused.close()


def request(service: str, *ends: socket.socket) -> None:
    """Ask the host to import ``service`` and, given the two sockets of a child, to fork it; returns at once.

    Args:
        ends: the child's channel and its lifeline; the host and the child get copies.
    """
    with _lock:
        if _host is None:
            return
        content = json.dumps({"service": service}).encode().ljust(host.REQUEST)
        with suppress(OSError):  # the host is gone: the child's channel is closed, and its first call raises
            socket.send_fds(_host.control, [content], [end.fileno() for end in ends])


def _forked(control: socket.socket, silent: bool) -> Callable[[], None]:
    """Fork the host, and return a function that waits for its end."""
    gc.freeze()  # keeps imported memory shared: the garbage collector would write to all of it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, but ours do not use Python's locks
        child = os.fork()
    if not child:
        host.run(control, silent=silent)

    def wait() -> None:
        until = time.monotonic() + ENDING
        with suppress(ChildProcessError):
            while not os.waitpid(child, os.WNOHANG)[0]:
                if time.monotonic() > until:
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.002)

    return wait


def _spawned(control: socket.socket, silent: bool) -> Callable[[], None]:
    """Start the host as a fresh process, and return a function that waits for its end."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from hpa_merge.isolation.host import main; "
        f"main({control.fileno()}, silent={silent})"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program],  # without the current folder on the path
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if silent else None,
    )

    def wait() -> None:
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return wait
