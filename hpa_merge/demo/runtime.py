"""The environment of the demo's computations: one thread, a fixed seed, no progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

__all__ = ["alone"]


@contextmanager
def alone(seed: int = 0) -> Iterator[None]:
    """Run the block with torch's global generator at ``seed`` and on one thread, and restore both afterwards.

    With one thread, sums have the same order on any number of cores; the demo's matrices are too small to gain from a
    second one.
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
