"""Read tensors of a checkpoint before they are needed, while something else is computed."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import final

from torch import Tensor

from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.sharing import WHOLE, Share

__all__ = ["Prefetch"]

PIECE = 2**24
"""Bytes that are read before the thread checks whether they are still needed: 16 MiB."""


@final
class Prefetch:
    """Reads a checkpoint's tensors in the order in which they are expected to be needed, in one thread.

    The order is a hint. A tensor that is needed and not ready is read at once, whatever the budget. A tensor that
    nobody asks for takes its room until it is forgotten. The thread does no arithmetic, so it starts no OpenMP pool.

    Call :meth:`close`, or leave the ``with`` block, before the checkpoint is closed.
    """

    def __init__(
        self, checkpoint: Checkpoint, order: Iterable[str], budget: int, *, pin: bool = False, share: Share = WHOLE
    ) -> None:
        """Start to read.

        Args:
            order: names of tensors, as in :meth:`expect`.
            budget: the most bytes that are prefetched; with 0, nothing is prefetched, and there is no thread.
            pin: read into page-locked memory, from which a copy to a CUDA device does not block.
            share: the part of every tensor that this process reads.

        Raises:
            KeyError: there is no tensor of such a name.
        """
        self._checkpoint, self._budget, self._pin, self._share = checkpoint, budget, pin, share
        self._expected: OrderedDict[str, None] = OrderedDict()
        self._reading: str | None = None  # in the thread; None also if that is no longer needed
        self._ready: dict[str, list[Tensor] | BaseException] = {}  # the parts of each tensor
        self._held = 0  # bytes that are ready or being read
        self._closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name=f"reading {checkpoint.role} ahead", daemon=True)
        self.expect(order)
        if budget:
            self._thread.start()

    @property
    def shares(self) -> bool:
        """Whether it reads a share of every tensor only."""
        return self._share.size > 1

    def read(self, name: str) -> Tensor:
        """As :meth:`Checkpoint.read`; also raises what the thread has met. A tensor that was given is not held."""
        return self._checkpoint.finish(name, self.read_parts(name))

    def read_parts(self, name: str) -> list[Tensor]:
        """As :meth:`Checkpoint.read_parts` with this process's share; raises as :meth:`read`."""
        with self._lock:
            self._expected.pop(name, None)
            self._changed.wait_for(lambda: self._reading != name)
            found = self._take(name)
        if found is None:
            return self._checkpoint.read_parts(name, self._share)
        if isinstance(found, BaseException):
            raise found
        return found

    def expect(self, names: Iterable[str]) -> None:
        """Add names to the end of the order, except those that are expected or ready already.

        A tensor that is larger than the budget is read when it is needed.

        Raises:
            KeyError: there is no tensor of such a name.
        """
        fitting = [name for name in names if self._size(name) <= self._budget]
        with self._lock:
            there = {self._reading, *self._ready}
            self._expected.update((name, None) for name in fitting if name not in there)
            self._changed.notify_all()

    def forget(self, names: Iterable[str]) -> None:
        """Drop tensors that will not be needed soon, and free their room; they may still be read or expected again."""
        with self._lock:
            for name in names:
                self._expected.pop(name, None)
                self._take(name)
                if self._reading == name:
                    self._reading = None

    def close(self) -> None:
        """End the thread after its present piece and free everything; :meth:`read` still works. Never raises."""
        with self._lock:
            self._closed, self._reading = True, None
            self._expected.clear()
            for name in tuple(self._ready):
                self._take(name)
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (name := self._next()) is not None:
            found = self._fetch(name)
            with self._lock:
                if self._reading == name and found is not None:
                    self._reading, self._ready[name] = None, found
                else:
                    self._held -= self._size(name)
                self._changed.notify_all()
            del found  # or it would be held here until the next one is read

    def _next(self) -> str | None:
        """Wait until there is room for the next tensor, and return its name; None at the end."""
        with self._lock:
            self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                return None
            name, _ = self._expected.popitem(last=False)
            self._reading = name
            self._held += self._size(name)
            return name

    def _has_room(self) -> bool:
        first = next(iter(self._expected), None)
        return first is not None and self._held + self._size(first) <= self._budget

    def _fetch(self, name: str) -> list[Tensor] | BaseException | None:
        """What is on disk of the tensor, or the exception for its reader; None if it is no longer needed."""
        parts = []
        try:
            for info in self._checkpoint.parts(name):
                parts.append(self._share.empty(info, pin=self._pin))
                for _ in self._checkpoint.stored_pieces(info, nbytes=PIECE, into=parts[-1], share=self._share):
                    if self._reading != name:
                        return None
            return parts
        except BaseException as error:
            return error

    def _take(self, name: str) -> list[Tensor] | BaseException | None:
        """Remove and return the tensor or exception of that name, if it is ready."""
        found = self._ready.pop(name, None)
        if found is not None:
            self._held -= self._size(name)
            self._changed.notify_all()
        return found

    def _size(self, name: str) -> int:
        return -(-sum(info.nbytes for info in self._checkpoint.parts(name)) // self._share.size)
