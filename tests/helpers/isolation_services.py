"""What runs in the children of isolation/test_child.py: answers, errors, and every way not to come to an end."""

import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from hpa_merge.errors import CalibrationError


class Probe:
    """Each method is a call of a child's."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def say(self, word: str) -> tuple[list[str], bytes]:
        self._said.append(word)
        return self._said, word.encode() * 3

    def where(self) -> tuple[list[Any], bytes]:
        return [os.getpid(), os.getppid(), str(Path.cwd())], b""

    def sentence(self) -> tuple[None, bytes]:
        raise CalibrationError("s.jsonl:1: no.")

    def mistake(self) -> tuple[None, bytes]:
        raise LookupError("what?")

    def compute(self) -> tuple[None, bytes]:
        return sum(1 for _ in iter(int, 1)), b""  # type: ignore[return-value]

    def compute_in_c(self) -> tuple[None, bytes]:
        """A loop that never comes back to Python."""
        a: Any = []
        b: Any = []
        for _ in range(64):
            a, b = [a, a], [b, b]
        return a == b, b""  # type: ignore[return-value]

    def room(self) -> tuple[int, bytes]:
        """Bytes that may be taken still."""
        taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        return resource.getrlimit(resource.RLIMIT_DATA)[0] - taken, b""

    def wait(self) -> tuple[None, bytes]:
        time.sleep(10**6)
        return None, b""

    def allocate(self) -> tuple[None, bytes]:
        return None, bytes(bytearray(2**33))

    def allocate_little_by_little(self) -> tuple[None, bytes]:
        kept = []
        while True:
            kept.append(bytearray(2**20))

    def allocate_as_a_cause(self) -> tuple[None, bytes]:
        try:
            self.allocate()
        except MemoryError as error:
            raise CalibrationError("s.jsonl:1: it cannot be read (MemoryError).") from error
        return None, b""

    def abort(self) -> tuple[None, bytes]:
        os.abort()

    def crash(self) -> tuple[None, bytes]:
        ctypes.string_at(8)
        return None, b""

    def leave(self) -> tuple[None, bytes]:
        os._exit(3)

    def be_killed(self) -> tuple[None, bytes]:
        os.kill(os.getpid(), signal.SIGKILL)
        return None, b""

    def write(self) -> tuple[None, bytes]:
        os.write(1, b"printed\n")
        os.write(2, b"printed\n")
        return None, b""

    def write_to(self, number: int) -> tuple[int, bytes]:
        return os.write(number, b"printed\n"), b""

    def interrupt(self) -> tuple[str, bytes]:
        os.kill(os.getpid(), signal.SIGINT)
        return "still here", b""
