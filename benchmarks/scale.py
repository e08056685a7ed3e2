"""A merge with known statistics at the sizes of real models, beside mergekit and the disk: time and peak memory.

    python benchmarks/scale.py [--sizes 0.5B 3B 7B 14B] [--runs 5] [--folder DIR] [--json FILE]

Each size is a pair of random bfloat16 checkpoints in the shape of Qwen2.5's model of that size. The sizes come one
after the other: a pair is made, merged, and removed. A size that would leave less than 8 GB of the disk free is passed
over. Statistics come from a few short samples, in a run that does not count. ``hpa-merge --stats`` and mergekit's
linear merge then alternate, each in a process of its own with two threads. In every round the disk's floor is measured
on the same files: reading OLD and NEW, and writing as many bytes as NEW has, with fsync. A pair of a few megabytes
comes first: its time is what starting and importing take, and is taken off where that is said. Inputs that fit into
memory lie in the page cache. Exits with status 1 if a contestant failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from compare import (
    Contestant,
    Failed,
    Run,
    compete,
    describe_machine,
    make_contestants,
    median,
    middle,
    note,
    warm,
    weigh,
)
from compare import own_versions as versions

SPARE = 8 * 10**9
"""Bytes of the disk that are never taken."""

TOKENS = 16
"""Of a sample: the statistics only have to be there."""

OURS, THEIRS = "hpa-merge --stats", "mergekit linear"


@dataclass(frozen=True)
class Size:
    layers: int
    shape: dict[str, Any]
    nbytes: int
    """Of one checkpoint, about."""


SIZES = {
    "start": Size(
        2, {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 1024}, 10**6
    ),
    "0.5B": Size(24, {}, 10**9),
    "3B": Size(36, {"hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16}, 6_200_000_000),
    "7B": Size(
        28,
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
        15_300_000_000,
    ),
    "14B": Size(
        48,
        {
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
        29_600_000_000,
    ),
}

MAKE = """
import json, sys
from pathlib import Path
from checkpoints import make_pair
make_pair(Path(sys.argv[1]), **json.loads(sys.argv[2]))
"""
"""In a process of its own: a child's peak memory is counted from the memory of the process that started it."""

BUFFER = 1 << 24


def disk_floor(inputs: Path, folder: Path) -> dict[str, float]:
    """Seconds of reading OLD and NEW, and of writing NEW's bytes with fsync, one after the other."""
    buffer, began = bytearray(BUFFER), time.monotonic()
    for path in (*inputs.glob("old/*.safetensors"), *inputs.glob("new/*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    read, target = time.monotonic(), folder / "floor"
    try:
        with target.open("wb", buffering=0) as file:
            for begin in range(0, size := weigh(inputs / "new"), BUFFER):
                file.write(memoryview(buffer)[: min(BUFFER, size - begin)])
            os.fsync(file.fileno())
        return {"reading": read - began, "writing": time.monotonic() - read, "disk": time.monotonic() - began}
    finally:
        target.unlink(missing_ok=True)


def measure(name: str, folder: Path, kit: Path, runs: int) -> dict[str, Any]:
    """Every run of both, and the floor of each round; the pair is made and removed.

    Raises:
        Failed: a contestant failed.
    """
    size, inputs = SIZES[name], folder / name
    try:
        note(f"{name}: making the pair")
        shards = -(-size.nbytes // 10**9)
        made = {"layers": size.layers, "samples": 8, "shards": shards, "shape": size.shape, "tokens": TOKENS}
        maker = [sys.executable, "-c", MAKE, str(inputs.absolute()), json.dumps(made)]
        subprocess.run(maker, check=True, cwd=Path(__file__).parent)
        contestants: list[Contestant] = make_contestants([OURS, THEIRS], inputs, folder, {"mergekit": kit})
        (folder / "stats").unlink(missing_ok=True)
        note(f"{name}: computing the statistics, not counted")
        compete(contestants[0], inputs, folder)
        found: dict[str, list[Run]] = {each.name: [] for each in contestants}
        floors = []
        for number in range(runs):
            warm(inputs)
            floors.append(disk_floor(inputs, folder))
            for each in contestants if number % 2 == 0 else contestants[::-1]:
                found[each.name].append(result := compete(each, inputs, folder))
                note(f"{name}, {each.name}: {result.wall:.1f} s, {result.cpu:.1f} s CPU, {result.peak >> 20} MiB")
        return {"bytes": weigh(inputs / "new"), "runs": found, "floors": floors}
    finally:
        for path in (inputs, folder / "out", folder / "out.partial", folder / "out.yaml"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def rows(name: str, result: dict[str, Any], start: dict[str, Any]) -> list[str]:
    floor, found = middle(result["floors"])["disk"], result["runs"]
    lines = []
    for each, mine in found.items():
        wall, starting = median(mine, "wall"), median(start["runs"][each], "wall")
        shares = ("–", "–")
        if each == OURS:
            shares = tuple(f"{median(mine, key) / median(found[THEIRS], key):.2f}" for key in ("wall", "cpu"))
        cells = [name, f"{result['bytes'] / 1e9:.2f} GB", each, f"{wall:.1f} s ({min(run.wall for run in mine):.1f})"]
        cells += [f"{median(mine, 'cpu'):.1f} s", f"{median(mine, 'peak') / 2**20:.0f} MiB", *shares]
        cells += [f"{floor:.1f} s", f"{wall / floor:.2f}", f"{(wall - starting) / floor:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES][1:], default=[*SIZES][1:])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    parser.add_argument("--peers", type=Path, default=peers.FOLDER, help="where mergekit's environment is kept")
    parser.add_argument("--json", type=Path, help="write every run's figures there")
    arguments = parser.parse_args()
    kit = peers.ensure("mergekit", arguments.peers)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"machine": describe_machine(), "versions": versions(), "sizes": {}}
    print(", ".join(f"{key} {value}" for key, value in {**everything["machine"], **everything["versions"]}.items()))
    print(f"medians of {arguments.runs} alternating runs (least), {time.strftime('%Y-%m-%d')}\n")
    print("| size | weights | | time | CPU | peak | time to mergekit | CPU to it | the disk | times it | after start |")
    print(f"|{' --- |' * 11}")
    failed = False
    for name in ("start", *arguments.sizes):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            free, needed = shutil.disk_usage(scratch).free, 3 * SIZES[name].nbytes
            if free - needed < SPARE:
                note(f"{name}: passed over, as it takes {needed / 1e9:.0f} GB and {free / 1e9:.0f} GB are free")
                continue
            try:
                everything["sizes"][name] = measure(name, Path(scratch), kit, arguments.runs)
            except Failed as reason:
                note(f"{name}: {reason}")
                failed = True
                continue
        if name != "start":
            print("\n".join(rows(name, everything["sizes"][name], everything["sizes"]["start"])), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=2, default=vars) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
