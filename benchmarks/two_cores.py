"""Two processes of one thread against one of one and one of two, on two cores: how many times as fast is the merge?

    python benchmarks/two_cores.py [--hidden 1024] [--layers 4] [--samples 128] [--tokens 256] [--rounds 5]

A pair of random bfloat16 Llamas (memory.py) is merged on the CPU in turns, each round beginning with another way. The
time is that of merge(), without imports, of the slowest process. Every way has to make the same bytes; exits with
status 1 if one does not.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

import memory
from merging import compare_ranks, run_merge

WAYS = ((1, 1), (1, 2), (2, 1))
"""Processes, and threads of each."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--samples", type=int, default=128, help="in each file; a merge takes 8 for safety, and 128")
    parser.add_argument("--tokens", type=int, default=256, help="of each sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    arguments = parser.parse_args()

    runs = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        memory.make_pair(folder, arguments.layers, arguments.hidden, arguments.samples, arguments.tokens)
        for number in range(arguments.rounds):
            for processes, threads in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                os.environ["OMP_NUM_THREADS"] = str(threads)
                runs[processes, threads].append(run_merge(folder, "cpu", processes))
    slowest = {way: [max(rank["seconds"] for rank in run["ranks"]) for run in of_way] for way, of_way in runs.items()}
    base = slowest[WAYS[0]]
    print("| processes of threads | merge, slowest process | times as fast, by round | median |")
    print("| --- | --- | --- | --- |")
    for (processes, threads), seconds in slowest.items():
        ratios = [one / each for one, each in zip(base, seconds, strict=True)]
        cells = [f"{statistics.median(seconds):.2f} s", ", ".join(f"{each:.2f}" for each in ratios)]
        print(f"| {processes} of {threads} | {' | '.join(cells)} | {statistics.median(ratios):.2f} |")
    print("\n" + compare_ranks({processes: runs[processes, 1] for processes, threads in WAYS if threads == 1}))
    return int(len({run["out"] for of_way in runs.values() for run in of_way}) > 1)


if __name__ == "__main__":
    sys.exit(main())
