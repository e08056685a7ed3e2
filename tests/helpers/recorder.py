"""A stand-in for a writer, for the tests of the asynchronous writer."""

import threading
from typing import Any, final

import torch

from hpa_merge.checkpoint import AsyncWriter

NAMES = [f"t{number}" for number in range(6)]


@final
class Recorder:
    """Stands in for a writer: notes the calls, each of which waits for ``gate``; one may fail."""

    def __init__(self, fails: int | None = None, error: BaseException | None = None) -> None:
        self.begun = 0
        self.calls: list[Any] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._fails, self._error = fails, error

    def write(self, name: str, tensor: torch.Tensor) -> None:
        assert tensor.is_contiguous()  # else the thread would rearrange it
        self._call(name)

    def copy(self, name: str) -> None:
        self._call(name)

    def commit(self, entry: Any) -> None:
        self._call(entry)

    def _call(self, what: Any) -> None:
        self.begun += 1
        assert self.gate.wait(120)
        self.threads.add(threading.current_thread().name)
        self.calls.append(what)
        if len(self.calls) - 1 == self._fails and self._error is not None:
            raise self._error


def behind_of(writer: Recorder, budget: int) -> AsyncWriter:
    return AsyncWriter(writer, budget)  # type: ignore[arg-type]
