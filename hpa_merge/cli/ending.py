"""How a run is ended from outside: by a signal, soon, and with one sentence."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hpa_merge.cli.terminal import complain

INTERRUPTED = 130
"""The exit status of a run that a signal has ended."""

INTERRUPTION = "interrupted: the same command with --resume goes on."
"""For commands that have ``--resume``."""

STOPPED = "interrupted: run it again."
"""For the others."""

GRACE = 1.0
"""Seconds that an interrupted run may take to end by itself; whatever moment it is ended at, it can be resumed."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, and a terminal that is closed; under nohup the last one is ignored, and stays so."""


@contextmanager
def ending_soon(sentence: str = INTERRUPTION) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the block by ``KeyboardInterrupt`` or, where that takes long, the process.

    Python sees a signal only between two of its own steps. So a thread is told of it too, and ends the process where a
    library computes on; whatever moment that is, the run can be resumed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def watch() -> None:
        while (number := os.read(told, 1)) and number[0] not in ENDING:
            pass
        if number and not over.wait(GRACE):
            with suppress(OSError):  # the terminal may be gone
                complain(sentence)
            os._exit(INTERRUPTED)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    ours = [number for number in ENDING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in ours}
    waker = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(tell)
        watcher.join()
        os.close(told)
