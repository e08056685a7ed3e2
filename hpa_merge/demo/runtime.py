"""What surrounds the demo's computations: one thread, random numbers of their own, no progress bars of others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

__all__ = ["alone"]


@contextmanager
def alone(seed: int = 0) -> Iterator[None]:
    """Runs the block with torch's global generator at ``seed``, on one thread; leaves everything as it was found.

    One thread, because the sums then come out in one order on any number of cores, and matrices as small as the
    demo's win next to nothing from a second one.
    """
    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            logging.enable_progress_bar()
