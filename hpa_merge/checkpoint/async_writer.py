"""Write tensors of OUT in order while the next ones are computed."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, final

from torch import Tensor

from hpa_merge.checkpoint.writer import CheckpointWriter

__all__ = ["AsyncWriter"]


@final
class AsyncWriter:
    """Makes a writer's calls one after the other in one thread; for one caller.

    The writer's exceptions are raised by the next call, or by :meth:`flush`. After an exception nothing is written, so
    no commit names a tensor that is not there, and every further call raises the exception again.

    A ``with`` block ends when everything is written; if the block raises, waiting calls are dropped. After it nothing
    is written, so the writer may be published or aborted.
    """

    def __init__(self, writer: CheckpointWriter, budget: int) -> None:
        """Start the thread.

        Args:
            writer: nobody else may call it before :meth:`flush` has returned, or the end.
            budget: the most bytes of tensors that wait or are being written; a larger tensor is written alone. With 0,
                every call is made at once, and there is no thread.
        """
        self._writer, self._budget = writer, budget
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()  # with the bytes of each
        self._held = 0  # bytes that wait or are being written
        self._idle = True
        self._closed = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="writing OUT behind", daemon=True)
        if budget:
            self._thread.start()

    def write(self, name: str, tensor: Tensor) -> None:
        """Queue :meth:`CheckpointWriter.write`; waits until the budget has room for the tensor.

        Args:
            tensor: on any device; the caller must not change it afterwards, because its memory may be written from.

        Raises:
            OutputError: an earlier call failed or, with a budget of 0, this one.
        """
        self._wait(lambda: not self._held or self._held + tensor.nbytes <= self._budget)
        host = tensor.detach().cpu().contiguous()  # here, because the thread must not do arithmetic
        self._put(partial(self._writer.write, name, host), host.nbytes)

    def copy(self, name: str) -> None:
        """Queue :meth:`CheckpointWriter.copy`; raises as :meth:`write`."""
        self._put(partial(self._writer.copy, name))

    def commit(self, entry: Any) -> None:
        """Queue :meth:`CheckpointWriter.commit`; the caller must not change ``entry``. Raises as :meth:`write`."""
        self._put(partial(self._writer.commit, entry))

    def flush(self) -> None:
        """Wait until every call is done; raises as :meth:`write`."""
        self._wait(lambda: self._idle and not self._jobs)

    def close(self) -> None:
        """Drop waiting calls and end the thread after its present call. Never raises, and may be called twice."""
        with self._lock:
            self._closed = True
            self._drop()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> "AsyncWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _put(self, job: Callable[[], None], nbytes: int = 0) -> None:
        """Queue ``job``; without a thread, do it."""
        with self._lock:
            self._raise()
            if self._budget:
                self._jobs.append((job, nbytes))
                self._held += nbytes
                self._changed.notify_all()
                return
        self._do(job)
        self._wait(lambda: True)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready``, which is soon after a failure; then raise the failure, if there is one."""
        with self._lock:
            self._changed.wait_for(ready)
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise RuntimeError("nothing can be written after the end")

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job, nbytes = self._jobs.popleft()
                self._idle = False
            self._do(job)
            del job  # and its tensor, before its room counts as free
            with self._lock:
                self._held -= nbytes

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            with self._lock:
                self._error = error
                self._drop()

    def _drop(self) -> None:
        """Remove the waiting calls."""
        while self._jobs:
            self._held -= self._jobs.popleft()[1]
