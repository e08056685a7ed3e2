"""Tensors of a checkpoint, read before they are asked for while something else is computed."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint.reader import Checkpoint

__all__ = ["Prefetch"]

PIECE = 2**24
"""Bytes that are read before the thread looks whether they are still wanted: 16 MiB."""


@final
class Prefetch:
    """Reads a checkpoint's tensors in the order in which they are expected to be asked for, in one thread.

    The order is a hint: what is asked for and is not here is read at once, budget or not, and a tensor that nobody asks
    for takes its room until it is forgotten. The thread reads and does no arithmetic, so it starts no OpenMP pool.

    End with :meth:`close`, which the end of a ``with`` block calls, before the checkpoint is closed.
    """

    def __init__(self, checkpoint: Checkpoint, order: Iterable[str], budget: int, *, pin: bool = False) -> None:
        """Begin to read.

        Args:
            order: names of tensors, as in :meth:`expect`.
            budget: bytes that are read and not yet asked for, at most; 0: nothing is read ahead, and there is no
                thread.
            pin: read into page-locked memory, from which a copy to a CUDA device need not be waited for.

        Raises:
            KeyError: there is no tensor of such a name.
        """
        self._checkpoint, self._budget, self._pin = checkpoint, budget, pin
        self._expected: OrderedDict[str, None] = OrderedDict()
        self._reading: str | None = None  # in the thread; None also where that is not wanted any more
        self._ready: dict[str, Tensor | BaseException] = {}
        self._held = 0  # bytes of what is ready, or being read
        self._closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name=f"reading {checkpoint.role} ahead", daemon=True)
        self.expect(order)
        if budget:
            self._thread.start()

    def read(self, name: str) -> Tensor:
        """As :meth:`Checkpoint.read`. What is given is not held here any more; a second time it is read again.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file cannot be read any more, now or when it was read ahead.
        """
        with self._lock:
            self._expected.pop(name, None)
            self._changed.wait_for(lambda: self._reading != name)
            found = self._take(name)
        if found is None:
            return self._checkpoint.read(name)
        if isinstance(found, BaseException):
            raise found
        return self._checkpoint.finish(name, found)

    def expect(self, names: Iterable[str]) -> None:
        """Add to the end of the order; what stands in it or is here already is not read twice.

        A tensor that is larger than the budget is left to be read when it is asked for.

        Raises:
            KeyError: there is no tensor of such a name.
        """
        fitting = [name for name in names if self._size(name) <= self._budget]
        with self._lock:
            there = {self._reading, *self._ready}
            self._expected.update((name, None) for name in fitting if name not in there)
            self._changed.notify_all()

    def forget(self, names: Iterable[str]) -> None:
        """Give up what will not be asked for soon, and its room; it may still be asked for, or expected again."""
        with self._lock:
            for name in names:
                self._expected.pop(name, None)
                self._take(name)
                if self._reading == name:
                    self._reading = None

    def close(self) -> None:
        """End the thread within a piece's time and free everything; :meth:`read` goes on without it. Never raises."""
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
            del found  # else it is held here until the next one is read

    def _next(self) -> str | None:
        """The next name, as soon as there is room for it; None at the end."""
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

    def _fetch(self, name: str) -> Tensor | BaseException | None:
        """The tensor, or what its reader is to be told; None where it is not wanted any more."""
        info = self._checkpoint.tensors[name]
        try:
            tensor = torch.empty(info.shape, dtype=info.dtype, pin_memory=self._pin)
            for _ in self._checkpoint.pieces(name, PIECE, into=tensor):
                if self._reading != name:
                    return None
            return tensor
        except BaseException as error:
            return error

    def _take(self, name: str) -> Tensor | BaseException | None:
        """What is here of that name, which is then not held here any more."""
        found = self._ready.pop(name, None)
        if found is not None:
            self._held -= self._size(name)
            self._changed.notify_all()
        return found

    def _size(self, name: str) -> int:
        return self._checkpoint.tensors[name].nbytes
