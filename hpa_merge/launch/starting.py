"""``--nproc N``: this process starts N others on this machine with torch's own launcher, as torchrun does."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hpa_merge.errors import ConfigError
from hpa_merge.launch.environment import COUNT

__all__ = ["Ended", "check_count", "start"]

MOST = 16
"""Processes that may run on any machine; more than that only with as many cores or GPUs."""

GRACE = 10
"""Seconds that a process may take to end when another one has ended."""


ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end the processes too, unless they are ignored, as nohup does with one."""


@final
@dataclass(frozen=True)
class Ended:
    """How the processes have ended.

    Attributes:
        status: the exit status that one of them gave; None if none did.
        interrupted: whether a signal has come to this process.
        killed: the rank of a process that a signal has ended; None if there is none.
        by: the name of that signal.
    """

    status: int | None = 0
    interrupted: bool = False
    killed: int | None = None
    by: str = ""


def check_count(count: int, device: str, cuda_devices: int) -> None:
    """Check that this machine can run so many processes.

    Args:
        device: the option of that name.
        cuda_devices: how many there are here.

    Raises:
        ConfigError: it cannot.
    """
    kind, _, index = device.partition(":")
    if index:
        raise ConfigError(f"--nproc {count} gives each process a GPU of its own, and device is {device}: give {kind}.")
    if kind == "cuda" or (kind == "auto" and cuda_devices):
        if count > cuda_devices:
            raise ConfigError(
                f"--nproc is {count} and this machine has {cuda_devices} CUDA devices: give at most as many, or use "
                "--device cpu."
            )
    elif count > (most := max(MOST, os.cpu_count() or 1)):
        raise ConfigError(f"--nproc is {count} and has to be at most {most} on this machine: give fewer.")


def start(count: int, words: Sequence[str]) -> Ended:
    """Run ``hpa-merge`` with ``words`` as so many processes, and wait for them.

    A signal that ends this process ends them too. Nothing is printed here.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    os.environ[COUNT] = str(count)
    logging.disable(logging.CRITICAL)  # of torch's launcher: what there is to say is said by the command line
    here = {"", str(Path.cwd())} & {*sys.path}
    isolated = [] if here else ["-P"]  # else python -m would import what lies in the present folder
    with TemporaryDirectory(prefix="hpa-merge-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=f"hpa-merge-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # any free port
            max_restarts=0,
            local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=GRACE,
            signals_to_handle=",".join(number.name for number in ENDING if signal.getsignal(number) != signal.SIG_IGN),
        )
        try:
            elastic_launch(config, sys.executable)(*isolated, "-m", "hpa_merge", *words)
        except SignalException:
            return Ended(None, interrupted=True)
        except ChildFailedError as error:
            return _of(error)
    return Ended()


def _of(error: ChildFailedError) -> Ended:
    """The end of the first process that has a reason of its own: the launcher ends the others with SIGTERM."""
    codes = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
    killed = [(rank, -code) for rank, code in codes.items() if code < 0]
    for rank, number in sorted(killed, key=lambda each: each[1] == signal.SIGTERM):
        if number != signal.SIGTERM or len(killed) == len(codes):
            return Ended(None, killed=rank, by=_name(number))
    return Ended(next(code for code in codes.values() if code > 0))


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
