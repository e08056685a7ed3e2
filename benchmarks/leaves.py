"""What sums over leaves, which any number of processes can share, cost one process.

    python benchmarks/leaves.py [PAIRS]

Gathers the Gram matrix of 128 samples of 128 tokens, on one thread, with and without leaves in turn. Prints for each
number of columns and each dtype the median of the processor time of both, and the median and the range of the ratios.
"""

import statistics
import sys
import time

import torch
from torch import Tensor

from hpa_merge.core import Curvature
from hpa_merge.core.leaves import GatheredLeaves, leaf_at

COLUMNS = (512, 1024, 2048, 4096)
SAMPLES, TOKENS = 128, 128


def without_leaves(samples: list[Tensor]) -> Curvature:
    total = Curvature(samples[0].shape[1])
    for tokens in samples:
        total.add(tokens)
    return total


def with_leaves(samples: list[Tensor]) -> Curvature:
    leaves = GatheredLeaves(samples[0].shape[1], offload=False, apart=False)
    for place, tokens in enumerate(samples):
        leaves.add((1, leaf_at(place, len(samples))), tokens)
    return leaves.total()


def main(pairs: int) -> None:
    torch.set_num_threads(1)
    print("columns  dtype     without  with     ratio (range)")
    for columns in COLUMNS:
        for dtype in (torch.bfloat16, torch.float32):
            samples = list(torch.randn(SAMPLES * TOKENS, columns).to(dtype).split(TOKENS))
            repeats = max(1, 4 * (1024 // columns) ** 2)
            took: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(pairs + 1):
                for leaves in (turn % 2 == 0, turn % 2 == 1):
                    begin = time.process_time()
                    for _ in range(repeats):
                        total = with_leaves(samples) if leaves else without_leaves(samples)
                        total.hessian(0.01)  # which multiplies the tokens that wait
                    if turn:  # the first pair warms up
                        took[leaves].append((time.process_time() - begin) / repeats)
            ratios = [new / old for old, new in zip(took[False], took[True], strict=True)]
            medians = "   ".join(f"{statistics.median(took[leaves]):.4f}" for leaves in (False, True))
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f}–{max(ratios):.2f})"
            print(f"{columns:7}  {str(dtype)[6:]:8}  {medians}   {spread}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
