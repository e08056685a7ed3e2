"""The environment of the demo's computations: one thread, a fixed seed, no progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

from hpa_merge.core.threads import one_thread

__all__ = ["alone"]


@contextmanager
def alone(seed: int = 0) -> Iterator[None]:
    """Run the block with torch's global generator at ``seed`` and on one thread, and restore both afterwards.

    With one thread, sums have the same order on any number of cores; the demo's matrices are too small to gain from a
    second one.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
