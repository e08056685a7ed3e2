"""What each walk over a weight takes in a merge with known statistics: processor time per gigabyte of OUT.

    python benchmarks/passes.py [--rows 4864] [--columns 896] [--dtype bfloat16] [--rounds 9]

Calls the package's functions on one pair of weights in memory, on one thread, and hashes, reads and writes as many
bytes of a temporary file. The least of the rounds is shown: what else runs on the machine only adds. A changed weight
goes through all of them except ``compare``, which ends at the first difference; OLD's and NEW's are read and checked.
"""

import argparse
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable

import torch

from hpa_merge.checkpoint.files import digest_at, read_at, write_at
from hpa_merge.core import all_finite, fuse, measure_update, squared_distance
from hpa_merge.methods.applying import differ


def least(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the processor."""
    work()
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4864)
    parser.add_argument("--columns", type=int, default=896)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    old = torch.randn(arguments.rows, arguments.columns, generator=draw)
    old, new = old.to(dtype), (old + 0.01 * torch.randn(old.shape, generator=draw)).to(dtype)
    same, restored = old.clone(), torch.rand(arguments.columns, generator=draw) < 0.2
    content = new.view(torch.uint8).numpy().data.cast("B")
    with tempfile.TemporaryFile() as file:
        place = file.fileno()
        os.posix_fallocate(place, 0, len(content))
        walks: dict[str, Callable[[], object]] = {
            "read one weight into new memory": lambda: read_at(place, memoryview(bytearray(len(content))), 0),
            "check one weight for NaN and infinity": lambda: all_finite(new),
            "compare both, where nothing changed": lambda: differ(old, same),
            "measure both": lambda: measure_update(old, new),
            "fuse": lambda: fuse(old, new, restored, 0.01),
            "distance of the result": lambda: squared_distance(old, new),
            "SHA-256 from memory": lambda: hashlib.sha256(content).digest(),
            "SHA-256 read back": lambda: digest_at(place),
            "write": lambda: write_at(place, content, 0),
        }
        shape = f"{arguments.rows} x {arguments.columns} {arguments.dtype}"
        print(f"{platform.machine()}, torch {torch.__version__}, {shape}, {time.strftime('%F')}\n")
        print("| walk | CPU s per GB |\n| --- | --- |")
        for name, work in walks.items():
            print(f"| {name} | {least(work, arguments.rounds) / len(content) * 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
