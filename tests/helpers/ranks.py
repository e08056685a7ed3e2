"""Work of several ranks: processes that are forked from this one and joined by gloo."""

import datetime
import multiprocessing
import os
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hpa_merge.isolation import keeping

SECONDS = 120
"""How long a rank waits for another one; far longer than any test takes."""


def on_ranks(size: int, work: Callable[[int], Any], folder: Path, seconds: float = SECONDS) -> list[Any]:
    """What ``work(rank)`` returns on each rank, or the exception that it raises; None of a rank that ends otherwise.

    Args:
        folder: where the ranks find each other.
        seconds: how long one waits for another.
    """
    store = folder / f"ranks-{size}"
    store.unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    ranks = [
        context.Process(target=_run, args=(rank, size, store, seconds, work, theirs))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, but ours hold no lock
        for rank in ranks:
            rank.start()
    found = []
    for ours, theirs in pipes:
        theirs.close()
        try:
            found.append(ours.recv())
        except EOFError:
            found.append(None)
        ours.close()
    for rank in ranks:
        rank.join()
    return found


def _run(rank: int, size: int, store: Path, seconds: float, work: Callable[[int], Any], told: Connection) -> None:
    if keeping._host is not None:
        keeping._host._parent = os.getpid()  # the session's host serves the ranks too
    timeout = datetime.timedelta(seconds=seconds)
    dist.init_process_group("gloo", store=dist.FileStore(str(store), size), rank=rank, world_size=size, timeout=timeout)
    try:
        result = work(rank)
    except Exception as error:
        result = error
    told.send(result)
    told.close()
    os._exit(0)
