"""What a child does: it limits itself, then answers calls until its parent is gone.

A call names a method of the child's *service*, an object of a class of ours. The method returns a JSON value and bytes.
"""

import ctypes
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpa_merge.errors import HPAError
from hpa_merge.isolation.memory import free_memory
from hpa_merge.isolation.messages import Closed, receive, send

__all__ = ["AVAILABLE_SHARE", "serve"]

AVAILABLE_SHARE = 0.75
"""The share of the free memory that children may take together, whatever their limits."""

TRACE = 2**14
"""The last characters of a traceback that are sent."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_ANY_LENGTH = 2**63


def serve(channel: socket.socket, service: str, host: int) -> None:
    """Answer the calls that come through ``channel`` until it is closed.

    Args:
        service: the class with the methods, ``module:class``.
        host: the process that forked this one.
    """
    _end_with(host)
    try:
        folder, memory, together = pickle.loads(receive(channel.recv_into, _ANY_LENGTH)[0])  # from our own parent
        os.chdir(folder)
        memory = _limit_memory(memory, together)
        methods: Any = None
        while True:
            name, arguments, seconds = pickle.loads(receive(channel.recv_into, _ANY_LENGTH)[0])
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, whatever is computing
            data = b""
            try:
                methods = methods or _find(service)()
                value, data = getattr(methods, name)(*arguments)
                answer = {"value": value}
            except BaseException as error:  # a panic of a library in Rust is no Exception
                answer = _described(error, memory)
            text = json.dumps(answer).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)
            send(channel, text, data)
    except (Closed, OSError):
        return


def _end_with(host: int) -> None:
    """On Linux, end when the host ends, in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != host:
            os._exit(0)


def _limit_memory(memory: int, together: int) -> int:
    """On Linux, limit the memory that the process may take in addition to what it has.

    Only private writable memory counts, as malloc takes it, so a library may reserve addresses or map files.

    Args:
        together: number of children that share the free memory.

    Returns:
        The limit in bytes.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        if (free := free_memory()) is not None:
            memory = min(memory, int(free * AVAILABLE_SHARE) // together)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        wanted = pages * resource.getpagesize() + memory
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = min((wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)))
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    return memory


def _find(service: str) -> Any:
    module, _, name = service.partition(":")
    return getattr(importlib.import_module(module), name)


def _described(error: BaseException, memory: int) -> dict[str, Any]:
    """An error in JSON types: one of ours by its class and its sentence, out of memory, or any other."""
    trace = "".join(traceback.format_exception(error))[-TRACE:]
    if any(_is_out_of_memory(cause) for cause in _causes(error)):
        return {"memory": memory, "trace": trace}
    kind = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == HPAError.__module__), None)
    text = str(error) if kind else f"{type(error).__name__}: {error}"
    return {"error": text, "kind": kind, "trace": trace}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch and C++ only say so in a text."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "std::bad_alloc", "not enough memory")
    )
