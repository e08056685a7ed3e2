"""Threads and interruptions, for the tests of checkpoint/."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def _no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[], None]]:
    """``interrupt_soon()``: a real SIGINT comes to this process after a moment."""

    def interrupt() -> None:
        timer.start()

    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield interrupt
    timer.join()
    signal.signal(signal.SIGINT, before)
