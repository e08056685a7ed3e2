"""Bounds for what comes with a checkpoint and is run: its chat template, its tokenizer.

Jinja's sandbox keeps a template from Python's internals and from long ranges; it counts neither time nor memory.
"""

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["bounded", "panics_as_errors"]


class _Stopped(BaseException):
    """No ``Exception``: Jinja's compiler goes on after one."""


@contextmanager
def bounded(seconds: float, memory: int) -> Iterator[None]:
    """Stop the block when it has computed for ``seconds``, or when the process takes ``memory`` more bytes.

    The time is bounded where there is a timer, in the main thread only; the memory on Linux. Elsewhere neither is.

    Raises:
        TimeoutError, MemoryError: in the block.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    timed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    held = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        wanted = pages * resource.getpagesize() + memory
        limit = min(wanted, *(bound for bound in held if bound != resource.RLIM_INFINITY), wanted)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, held[1]))
    if timed:
        before = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _Stopped:
        raise TimeoutError(f"it takes more than {seconds:g} seconds") from None
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_DATA, held)


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """The tokenizers library ends in a panic where a tokenizer.json contradicts itself, which is no ``Exception``.

    Raises:
        ValueError: the block panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of pyo3, which does not export it
            raise
        raise ValueError(f"the tokenizers library fails: {error}") from error
