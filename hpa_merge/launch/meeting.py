"""The processes of a run find each other, share one voice, and end together."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import final

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from hpa_merge.errors import RankError
from hpa_merge.launch.environment import Place, ended, timeout_in
from hpa_merge.launch.watching import Peers

__all__ = ["Member", "meeting"]

COMING = 600.0
"""Seconds in which all processes must have started: the libraries may come from a slow file system."""

NEWS = 0.5
"""Seconds that a process that is interrupted, or whose exchange fails, waits to hear whether another one has ended."""

ANSWER = 2.0
"""Seconds that it waits to hear whether another one has told; the one that knows may be out of reach."""


@final
class Member:
    """This process among those of its run.

    Attributes:
        place: which one it is.
    """

    def __init__(self, place: Place, store: Store, peers: Peers) -> None:
        self.place = place
        self._store, self._peers = store, peers

    def begin(self, environment: Mapping[str, str] = os.environ) -> None:
        """Make all processes the default group of torch.distributed, and take the device that is this one's.

        Raises:
            ConfigError: the time-out in the environment is not one, or it is not known which device is its own.
            RankError: a process has ended.
        """
        exchange = timedelta(seconds=timeout_in(environment))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device := self.place.device(count)) is not None:
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if count else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.place.rank,
                world_size=self.place.size,
                timeout=exchange,
            )
        except RuntimeError as error:
            raise RankError(
                f"process {self.place.rank + 1} of {self.place.size} does not reach the others "
                f"({_reason(error):.100}): check that a firewall lets them connect, and read the output of the others."
            ) from error

    def on_end(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, in a thread, when another process ends the run."""
        self._peers.on_end = call
        if self._peers.wait(0.0):
            call()

    def may_tell(self, status: int) -> bool:
        """Whether this process, and no other, tells the user why the run ends; ``status``: the exit status of all."""
        if self.told is not None:
            return False
        answers: list[int] = []

        def ask() -> None:
            with suppress(RuntimeError, OSError):
                answers.append(self._store.add("told", 1))

        asking = threading.Thread(target=ask, daemon=True)  # which waits for ever if the network is cut
        asking.start()
        asking.join(ANSWER)
        self._peers.tell(status)
        return answers == [1] if answers else self._stands_in

    @property
    def _stands_in(self) -> bool:
        """Whether this is the first process on its machine, or the second one if the first is gone."""
        first = self.place.rank - self.place.local_rank
        return self.place.local_rank == (1 if self._peers.lost == first else 0)

    def lost(self) -> str | None:
        """The sentence for another process that has ended without a word; None if there is none."""
        self._peers.wait(NEWS)
        return None if self._peers.lost is None else ended(self._peers.lost, self.place.size)

    @property
    def told(self) -> int | None:
        """The exit status of the run, if another process has told the user why it ends."""
        return self._peers.told


@contextmanager
def meeting(place: Place, environment: Mapping[str, str] = os.environ) -> Iterator[Member]:
    """Meet the other processes, and stay among them within the block; :meth:`Member.begin` follows.

    Raises:
        RankError: not all processes have come.
    """
    if "OMP_NUM_THREADS" not in environment:
        torch.set_num_threads(place.threads(_cores()))
    try:
        store, _, _ = next(iter(rendezvous(place.url, timeout=timedelta(seconds=COMING))))
    except (RuntimeError, ValueError, OSError) as error:
        raise RankError(
            f"process {place.rank + 1} of {place.size} does not meet the others at {place.address}, port {place.port} "
            f"({_reason(error)}): check that all {place.size} were started, that the port is free there, and that a "
            "firewall lets them connect."
        ) from error
    board = PrefixStore("hpa-merge", store)
    peers = Peers(place, board, COMING)
    try:
        yield Member(place, board, peers)
    finally:
        peers.close()
        if dist.is_initialized():
            with suppress(RuntimeError, ValueError):
                dist.destroy_process_group()


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cores() -> int:
    """Cores that the processes on this machine share."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
