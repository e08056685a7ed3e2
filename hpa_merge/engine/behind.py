"""Merge the linears of a unit while the samples run through the next ones: no rank waits for another one's factors."""

import threading
from collections import deque
from collections.abc import Callable
from typing import final

import torch

__all__ = ["Behind"]

ENDING = 5.0
"""Seconds that a job may take after the end was asked for; then its process ends without it."""

Job = Callable[[], None]


@final
class Behind:
    """Does jobs one after the other, in one thread.

    The exception of a job is raised by the next call; after it no job is done. On a CUDA device, jobs have a stream of
    their own, and a job ends when its work on the device has ended. So what it holds stays in memory until then.
    """

    def __init__(self, device: torch.device, most: int) -> None:
        """``most``: how many jobs may wait or be at work; with 0 each is done at once, and there is no thread."""
        self._most, self._device = most, device
        self._jobs: deque[Job] = deque()  # with that at work
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="merging behind", daemon=True)
        self._stream = torch.cuda.Stream(device) if most and device.type == "cuda" else None

    def do(self, job: Job) -> None:
        """Queue ``job``, when there is room; raises what an earlier one has raised."""
        if not self._most:
            job()
            return
        if self._thread.ident is None:
            self._thread.start()
        ready = torch.cuda.current_stream(self._device).record_event() if self._stream is not None else None
        self._wait(lambda: len(self._jobs) < self._most)
        with self._changed:
            self._jobs.append(job if ready is None else lambda: self._on_stream(job, ready))
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until every job is done; raises what one has raised."""
        self._wait(lambda: not self._jobs)

    def close(self) -> None:
        """Drop waiting jobs, and end the thread after the one at work, unless that takes long. Never raises."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(ENDING)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or ready())
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # or sums would be taken in another order
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
            try:
                job()
            except BaseException as error:
                with self._changed:
                    self._error, self._closed = error, True
                    self._changed.notify_all()
                return
            del job
            with self._changed:
                self._jobs.popleft()
                self._changed.notify_all()

    def _on_stream(self, job: Job, ready: torch.cuda.Event) -> None:
        """Do a job on the stream of this thread, when the device has come to the point where it was queued."""
        assert self._stream is not None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            job()
            self._stream.synchronize()
