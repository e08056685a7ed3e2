"""Ends a run soon after a signal, with one sentence."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit status after a signal."""

INTERRUPTION = "interrupted: the same command with --resume continues."
"""For commands that have ``--resume``."""

STOPPED = "interrupted: run it again."
"""For the others."""

GRACE = 1.0
"""Seconds that an interrupted run may take to end by itself; it can be resumed in any case."""

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""A closed terminal, which nohup ignores; Ctrl-C; and a request to end."""


@contextmanager
def ending_soon(tell: Callable[[], int]) -> Iterator[threading.Event]:
    """SIGINT, SIGTERM and SIGHUP end the block with ``KeyboardInterrupt`` or, if that takes long, the process.

    Python handles a signal only between two of its own steps. A thread is woken too, and ends the process if a library
    goes on computing. The block gets an event that is set when a signal has come.

    Args:
        tell: tells the user, and returns the exit status.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    told, waking = os.pipe()
    os.set_blocking(waking, False)
    over = threading.Event()

    def watch() -> None:
        while (number := os.read(told, 1)) and number[0] not in ENDING:
            pass
        if number and not over.wait(GRACE):
            os._exit(tell())

    def interrupt(number: int, frame: object) -> None:
        came.set()
        raise KeyboardInterrupt

    ours = [number for number in ENDING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in ours}
    waker = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield came
    finally:
        over.set()
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waking)
        watcher.join()
        os.close(told)
