"""Calls in a process of their own, measured: CPU seconds and the memory that they take at their peak.

One helper process a session has imported what calls need; it has one thread and forks for each call. So a call costs
no imports, and what is measured is its own: the kernel begins a forked process's peak at what it has at the fork.
Neither the clock nor what ran before in this process is of any influence.
"""

import os
import pickle
import resource
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Measured", "Measuring", "measured"]

CPU_LIMIT = 300
"""Seconds after which the system ends a call, so that a test that hangs in a loop fails."""


@dataclass(frozen=True)
class Measured:
    """What came of a call.

    Attributes:
        status: of the process: 0 where the call returned, else what it exited with; negative: the signal that ended it.
        error: name of the class and sentence of what it raised; None if it raised nothing, or SystemExit.
        output, errors: what it wrote to the standard streams.
        cpu_seconds: in user and system mode, of processes that it started and waited for too.
        peak: bytes of memory at its peak, beyond what was there before.
    """

    status: int
    error: tuple[str, str] | None
    output: str
    errors: str
    cpu_seconds: float
    peak: int


class Measuring:
    """The helper process, from its first call to :meth:`close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, function: Callable[..., Any], *arguments: object, **options: object) -> Measured:
        """Call a function of a module, with what can be pickled, in this process's folder and environment."""
        if self._process is None:
            root = Path(__file__).parents[2]  # a function of a test file is one of tests.ROOM.test_…
            path = os.pathsep.join(map(os.path.abspath, filter(None, [*sys.path, str(root)])))
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = pickle.dumps((str(Path.cwd()), dict(os.environ), pickle.dumps((function, arguments, options))))
        _send(self._process.stdin, job)
        answer = _receive(self._process.stdout)
        assert answer is not None, "the process that forks for measured calls has ended"
        return Measured(**pickle.loads(answer))

    def close(self) -> None:
        """End the helper process."""
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()


measured = Measuring()
"""That of the session."""


def _send(stream: BinaryIO, content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _receive(stream: BinaryIO) -> bytes | None:
    """What was sent; None at the end."""
    head = stream.read(8)
    return stream.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else None


# --- in the helper process ---


def _serve() -> None:
    import hpa_merge.calibration
    import hpa_merge.cli
    import hpa_merge.engine.run  # noqa: F401

    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    while (job := _receive(jobs)) is not None:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as told:
            child = os.fork()
            if child == 0:
                _run(job, out.fileno(), errors.fileno(), told)
            _, ended, used = os.wait4(child, 0)
            for file in (out, errors, told):
                file.seek(0)
            before = pickle.load(told)
            answer = {
                "status": os.waitstatus_to_exitcode(ended),
                "error": pickle.load(told) if told.peek(1) else None,
                "output": out.read().decode(errors="replace"),
                "errors": errors.read().decode(errors="replace"),
                "cpu_seconds": used.ru_utime + used.ru_stime,
                "peak": max(0, used.ru_maxrss * 1024 - before),
            }
        _send(answers, pickle.dumps(answer))


def _run(job: bytes, out: int, errors: int, told: BinaryIO) -> None:
    """In the forked process, which ends here; tells the bytes that it has in memory, then what was raised."""
    status = 70
    try:
        pickle.dump(_resident(), told)
        told.flush()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
        folder, environment, call = pickle.loads(job)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(errors, 2)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        function, arguments, options = pickle.loads(call)
        try:
            function(*arguments, **options)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            pickle.dump((type(error).__name__, str(error)), told)
            told.flush()
            status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
