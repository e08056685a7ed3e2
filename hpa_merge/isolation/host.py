"""The process that children are forked from: it imports what they need, and reads no stranger's content.

It has one thread, so that a fork is safe, and never computes. Its parent requests children through a socket. For each
child the host also gets a *lifeline*, a socket whose other end the parent holds. When the parent closes it, the host
kills the child; when the child ends, the host writes its exit status there.
"""

import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from hpa_merge.isolation.serving import serve

__all__ = ["REQUEST", "main", "run"]

REQUEST = 256
"""Bytes of a request: JSON, padded with blanks."""

_WATCHING = 0.1
"""Seconds within which a host that is importing notices that its parent is gone."""


def main(control: int, *, silent: bool) -> NoReturn:
    """Be the host, in a fresh process; ``control``: the file descriptor of the socket to the parent."""
    run(socket.socket(fileno=control), silent=silent)


def run(control: socket.socket, *, silent: bool) -> NoReturn:
    """Be the host, until the parent is gone.

    Args:
        silent: drop the output of libraries; else it goes to the parent's standard error.
    """
    try:
        _settle(control.fileno(), silent=silent)
        _Host(control).loop()
    finally:
        os._exit(0)


def _settle(control: int, *, silent: bool) -> None:
    """Drop everything that a forked process inherits: files, terminal, hooks, signal handlers."""
    null = os.open(os.devnull, os.O_RDWR)
    if silent:
        os.dup2(null, 2)
    os.dup2(2, 1)
    os.dup2(null, 0)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, closefd=False)  # noqa: SIM115 - they stay
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    warnings.resetwarnings()  # libraries' warnings are not errors here, even if they are in the parent
    warnings.simplefilter("ignore" if silent else "default")
    if sys.platform == "linux":  # elsewhere the host is a fresh process, which has no others
        for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            if number > 2 and number != control:
                os.dup2(null, number)  # a log that still uses the descriptor writes to nobody
    signal.set_wakeup_fd(-1)
    for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGPROF):
        signal.signal(other, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent ends its children


class _Host:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lifelines: dict[int, socket.socket] = {}  # of the children, by their numbers
        self._selector = selectors.DefaultSelector()
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def loop(self) -> None:
        """Serve the parent until it is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._answer():
                        self._end()
                        return
                elif key.fileobj is self._woken:
                    with suppress(BlockingIOError):
                        self._woken.recv(2**12)
                    self._reap()
                elif key.data in self._lifelines:
                    self._selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)  # it is not reaped yet, so the number is still its own

    def _answer(self) -> bool:
        """Handle one request of the parent; False if the parent is gone."""
        content, descriptors, _, _ = socket.recv_fds(self._control, REQUEST, 2)
        if not content:
            return False
        service = json.loads(content)["service"]
        with self._ending_with_parent():
            _import(service)
        if descriptors:
            self._fork(service, *(socket.socket(fileno=number) for number in descriptors))
        return True

    @contextmanager
    def _ending_with_parent(self) -> Iterator[None]:
        """Within the block, which may take seconds, the process ends when its parent is gone."""
        over = threading.Event()

        def watch() -> None:
            poll = select.poll()
            poll.register(self._control, 0)  # nothing but the end
            while not over.wait(_WATCHING):
                if poll.poll(0):
                    os._exit(0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _fork(self, service: str, channel: socket.socket, lifeline: socket.socket) -> None:
        gc.freeze()  # so that the child's garbage collector does not copy shared memory
        host, child = os.getpid(), os.fork()
        if child:
            channel.close()
            self._lifelines[child] = lifeline
            self._selector.register(lifeline, selectors.EVENT_READ, child)
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for other in (self._control, self._woken, self._waker, lifeline, *self._lifelines.values()):
                other.close()
            serve(channel, service, host)
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Tell the parent how the ended children ended."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            lifeline = self._lifelines.pop(child)
            with suppress(KeyError):
                self._selector.unregister(lifeline)
            with suppress(OSError):
                lifeline.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            lifeline.close()

    def _end(self) -> None:
        """End the children."""
        for child in self._lifelines:
            os.kill(child, signal.SIGKILL)
        for child in self._lifelines:
            os.waitpid(child, 0)


def _import(service: str) -> None:
    """Import the service's module; an error is raised again for the first call."""
    with suppress(Exception):
        importlib.import_module(service.partition(":")[0])
