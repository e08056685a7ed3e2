"""A merge on GPUs at full size: its time, its memory, and what it cannot be faster than on that machine.

    python benchmarks/gpu FOLDER [--device cuda] [--nproc 1 2 4 8] [--shape llava-7b]... [--traces FOLDER] [--json FILE]

For each shape FOLDER gets a pair of random bfloat16 checkpoints (NEW is OLD changed by 1 %) and calibration files, made
tensor by tensor on the device; they stay and serve the next call. llava-7b needs 45 GB of disk. Each merge runs in a
process of its own, once with its inputs in the page cache and once after they were dropped from it (as far as the
system lets them be dropped); a tiny one goes before all others, so that none pays for the first loading of torch. The
floors are measured next to them, on one device: forwards of a few blocks, matrix products, factorisations, reading and
writing. --json has the figures after every step. Exits with status 1 if a run failed, a target was missed, or another
number of processes made other bytes.

--nproc takes several numbers. The tables above are of the first one. Then merges with each of them run in turn,
--rounds times, with their inputs in the page cache. A table says how many times as fast each is as the smallest, the
memory of every process, and how long each part takes on each rank. With --traces one more merge for each number is
traced by torch.profiler on its first rank, for two units: chrome://tracing and ui.perfetto.dev open the JSON in gzip.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from cache import drop_from_cache, weights
from floors import arithmetic_floor, disk_floor, read_seconds
from merging import compare_ranks, run_merge
from pair import make_pair
from shapes import SHAPES, Target


def judge(value: float | None, limit: float | None) -> str:
    if value is None or limit is None:
        return "–"
    return "met" if value <= limit else "**missed**"


def figures(results: dict[str, Any], target: Target) -> list[tuple[str, ...]]:
    """Label, measured with the inputs in the page cache and with them dropped from it, target, verdict on each."""
    floors, columns = results["floors"], []
    for kind, disk in (("warm", "disk"), ("cold", "disk, cold")):
        if kind in results:
            run = results[kind]
            floor = max(floors["arithmetic"] / run.get("processes", 1), floors[disk])
            columns.append(run | {"wall over floor": run["wall"] / floor, "merge over floor": run["seconds"] / floor})
    rows = []
    for label, key, limit, unit, size in (
        ("wall time of the process", "wall", target.seconds, "s", 1),
        ("of it the merge, after imports", "seconds", None, "s", 1),
        ("the process, in times of the larger floor", "wall over floor", target.times_floor, "", 1),
        ("the merge, likewise", "merge over floor", None, "", 1),
        ("peak of host memory", "host bytes", target.host_bytes, "GB", 1e9),
        ("of it after imports", "host bytes after imports", None, "GB", 1e9),
        ("peak of device memory", "device bytes", target.device_bytes, "GB", 1e9),
        ("reserved by torch at most", "device bytes reserved", None, "GB", 1e9),
    ):
        values = [run[key] for run in columns]
        cells = ["–" if value is None else f"{value / size:.2f} {unit}".rstrip() for value in values]
        cells += ["–"] * (2 - len(cells))
        wanted = "–" if limit is None else f"{limit / size:g} {unit}".rstrip()
        rows.append((label, *cells, wanted, " / ".join(judge(value, limit) for value in values)))
    return rows


def table(name: str, results: dict[str, Any], target: Target) -> str:
    floors, merged = results["floors"], results["warm"]
    sets = (f"{SHAPES[name].samples[s]} {s} samples of {merged['tokens'][s]} tokens" for s in merged["tokens"])
    lines = [
        f"### {name}: {merged['adapted']} of {merged['linears']} linears adapted; {', '.join(sets)} in all, "
        f"{sum(merged['images'].values())} images",
        "",
        "| figure | inputs cached | inputs dropped | target | |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in figures(results, target)),
        "",
        "| floor | seconds | how |",
        "| --- | --- | --- |",
    ]
    share = floors["cached share after dropping"]
    stayed = "unknown how cold" if share is None else f"{share:.0%} still cached"
    half, full = floors["product flops a second, bfloat16"] / 1e12, floors["product flops a second, float32"] / 1e12
    columns, gram, factor = floors["gram columns"], floors["gram flops a second"], floors["factor flops a second"]
    rows = [
        ("forwards", "forward", "a few blocks measured, one sample at a time"),
        (
            "(forwards, if counted)",
            "forward, counted",
            f"{floors['forward flops'] / 1e12:.3g} TFLOP at {half:.3g} TFLOP/s",
        ),
        ("Gram matrices", "gram", f"{gram / 1e12:.3g} TFLOP/s at {columns} columns"),
        (
            "factorisations",
            "factorisation",
            f"{factor / 1e12:.3g} TFLOP/s at {columns} columns; a float32 product {full:.3g} TFLOP/s",
        ),
        ("**arithmetic**", "arithmetic", "forwards, Gram matrices and factorisations"),
        ("reading OLD and NEW", "reading", _rate(floors["bytes read"], floors["reading"], "from the page cache")),
        ("the same, cold", "reading, cold", _rate(floors["bytes read"], floors["reading, cold"], stayed)),
        ("writing OUT", "writing", _rate(floors["bytes written"], floors["writing"], "with fsync")),
        ("**disk**, inputs cached", "disk", "the larger of reading and writing"),
        ("**disk**, cold", "disk, cold", "the sum of both: it is one disk"),
    ]
    return "\n".join(lines + [f"| {label} | {floors[key]:.3g} | {how} |" for label, key, how in rows])


def _rate(size: float, seconds: float, how: str) -> str:
    return f"{size / 1e9:.3g} GB at {size / seconds / 1e9:.3g} GB/s, {how}"


def machine(device: str) -> dict[str, str]:
    name = platform.processor() or platform.machine()
    if device != "cpu":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return {
        "device": name,
        "host": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def measure(folder: Path, name: str, device: str, nproc: int, note: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Everything of one shape; ``note`` is called with what is known so far."""
    shape, results = SHAPES[name], {}
    steps: dict[str, Callable[[], Any]] = {
        "making": lambda: make_pair(folder, shape, device),
        "disk": lambda: disk_floor(folder),
        "cached": lambda: read_seconds(weights(folder), 4),
        "warm": lambda: run_merge(folder, device, nproc),
        "arithmetic": lambda: arithmetic_floor(shape, results["warm"], device),
        "dropped": lambda: drop_from_cache(weights(folder)),
        "cold": lambda: run_merge(folder, device, nproc),
    }
    for step, work in steps.items():
        began = time.monotonic()
        results[step] = work()
        print(f"{name}: {step}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        note(results)
        if step == "dropped" and (results[step] or 0.0) > 0.5:
            print(f"{name}: the page cache keeps the inputs, so there is no cold run", file=sys.stderr)
            break
    results["floors"] = results.pop("arithmetic") | results.pop("disk")
    return results


def scale(
    folder: Path, device: str, arguments: argparse.Namespace, note: Callable[[dict[str, Any]], None]
) -> dict[int, list[dict[str, Any]]]:
    """The runs with each number of processes, in turn; and a trace of each."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in sorted(arguments.nproc)}
    for _ in range(arguments.rounds):
        for count, of_count in runs.items():
            of_count.append(run_merge(folder, device, count))
            print(f"{folder.name}: {count} processes, {of_count[-1]['wall']:.1f} s", file=sys.stderr, flush=True)
            note({"ranks": runs})
    if arguments.traces:
        arguments.traces.mkdir(parents=True, exist_ok=True)
        for count in runs:
            run_merge(folder, device, count, arguments.traces.absolute() / f"{folder.name}-{count}.json.gz")
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nproc", type=int, nargs="+", default=[1], help="processes, one for each GPU")
    parser.add_argument("--rounds", type=int, default=1, help="merges with each number of processes")
    parser.add_argument("--traces", type=Path, help="a folder for what torch.profiler has seen")
    parser.add_argument("--shape", choices=list(SHAPES), action="append", help="may be given again; default: both real")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    device, first, failed = arguments.device, arguments.nproc[0], False
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // max(arguments.nproc))))
    everything: dict[str, Any] = {"machine": machine(device), "shapes": {}}
    print(", ".join(f"{key} {value}" for key, value in everything["machine"].items()), end="\n\n", flush=True)

    def note(name: str, results: dict[str, Any]) -> None:
        everything["shapes"].setdefault(name, {}).update(results)
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=2))

    make_pair(arguments.folder / "tiny", SHAPES["tiny"], device)
    run_merge(arguments.folder / "tiny", device, first)
    for name in arguments.shape or ["llava-7b", "llama-70b-block"]:
        folder, target = arguments.folder / name, SHAPES[name].target
        try:
            results = measure(folder, name, device, first, lambda so_far, name=name: note(name, so_far))
            note(name, results)
            print(table(name, results, target), end="\n\n", flush=True)
            failed |= any("missed" in row[-1] for row in figures(results, target))
            if len(arguments.nproc) > 1 or arguments.traces:
                runs = scale(folder, device, arguments, lambda so_far, name=name: note(name, so_far))
                print(compare_ranks(runs), end="\n\n", flush=True)
                failed |= len({run["out"] for of_count in runs.values() for run in of_count}) > 1
        except subprocess.CalledProcessError as error:  # its message has been seen
            print(f"{name}: the merge ended with status {error.returncode}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
