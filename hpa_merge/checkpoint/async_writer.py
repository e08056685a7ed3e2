"""Tensors of OUT, written in their order while the next ones are computed."""

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
    """A writer's calls, done one after the other in one thread; for one caller.

    What fails is raised by the next call, or by :meth:`flush`: the very exception of the writer. From then on nothing
    is written, so no commit speaks of a tensor that is not there, and every further call raises it again.

    At the end of a ``with`` block everything is written; where the block raises, what still waits is dropped. Either
    way nothing is written after it: the writer may then be published, or aborted.
    """

    def __init__(self, writer: CheckpointWriter, budget: int) -> None:
        """Begin.

        Args:
            writer: not to be called by others until :meth:`flush` has returned, or the end.
            budget: bytes of tensors that wait or are being written, at most, but for a tensor that is larger and alone;
                0: every call is done at once, and there is no thread.
        """
        self._writer, self._budget = writer, budget
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()  # with the bytes of each
        self._held = 0  # bytes of what waits, or is being written
        self._idle = True
        self._closed = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="writing OUT behind", daemon=True)
        if budget:
            self._thread.start()

    def write(self, name: str, tensor: Tensor) -> None:
        """As :meth:`CheckpointWriter.write`, when its turn comes; waits until the budget has room for it.

        Args:
            tensor: on any device; not to be changed any more, as its memory may be what will be written.

        Raises:
            OutputError: an earlier call failed, or for a budget of 0 this one.
        """
        self._wait(lambda: not self._held or self._held + tensor.nbytes <= self._budget)
        host = tensor.detach().cpu().contiguous()  # here, for the thread is to do no arithmetic
        self._put(partial(self._writer.write, name, host), host.nbytes)

    def copy(self, name: str) -> None:
        """As :meth:`CheckpointWriter.copy`, when its turn comes.

        Raises:
            OutputError: an earlier call failed, or for a budget of 0 this one.
        """
        self._put(partial(self._writer.copy, name))

    def commit(self, entry: Any) -> None:
        """As :meth:`CheckpointWriter.commit`, when every call before it is done.

        Args:
            entry: not to be changed any more.

        Raises:
            OutputError: an earlier call failed, or for a budget of 0 this one.
        """
        self._put(partial(self._writer.commit, entry))

    def flush(self) -> None:
        """Wait until every call is done.

        Raises:
            OutputError: one failed.
        """
        self._wait(lambda: self._idle and not self._jobs)

    def close(self) -> None:
        """Drop what waits and end the thread, after the call that it is at. Never raises, and may be called twice."""
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
        """Let ``job`` wait for its turn; without a thread do it."""
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
        """Until ``ready``, which it is soon when a job has failed; then raise that."""
        with self._lock:
            self._changed.wait_for(ready)
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise RuntimeError("nothing can be written behind after the end")

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
            del job  # and with it the tensor, before its room counts as free
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
        """Take away what waits."""
        while self._jobs:
            self._held -= self._jobs.popleft()[1]
