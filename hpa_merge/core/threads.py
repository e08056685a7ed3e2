"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with torch on the calling thread alone, for tensors that are too small to be divided.

    OpenMP's threads wait for more work by spinning, so that a few small operations can keep every core busy. A sum also
    has the same order on any number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
