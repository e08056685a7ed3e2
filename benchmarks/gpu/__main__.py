"""A merge on one GPU at full size: its time, its memory, and what it cannot be faster than on that machine.

    python benchmarks/gpu FOLDER [--device cuda] [--nproc 1] [--shape llava-7b]... [--json FILE]

For each shape FOLDER gets a pair of random bfloat16 checkpoints (NEW is OLD changed by 1 %) and calibration files, made
tensor by tensor on the device; they stay and serve the next call. llava-7b needs 45 GB of disk. Each merge runs in a
process of its own, once with its inputs in the page cache and once after they were dropped from it (as far as the
system lets them be dropped); a tiny one goes before all others, so that none pays for the first loading of torch. The
floors are measured next to them, on one device: forwards of a few blocks, matrix products, factorisations, reading and
writing. With --nproc the merge runs on several GPUs. --json has the figures after every step. Exits with status 1 if a
run failed or a target was missed.
"""

import argparse
import json
import os
import platform
import shutil
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
from pair import make_pair
from shapes import SHAPES, Target

MERGE = """
import json, sys, time
began = time.monotonic()
import torch
import hpa_merge
from hpa_merge.engine.machine import peak_host_bytes
from hpa_merge.api import merge
imported, host, (folder, device) = time.monotonic(), peak_host_bytes(), sys.argv[1:]
report = merge(folder + "/old", folder + "/new", folder + "/out", safety_calib=folder + "/safety.jsonl",
               task_calib=folder + "/task.jsonl", config=hpa_merge.HPAConfig(device=device), page=False)
print(json.dumps({
    "seconds": time.monotonic() - imported, "importing": imported - began,
    "host bytes": peak_host_bytes(), "host bytes after imports": host,
    "device bytes": report.run.peak_device_bytes,
    "device bytes reserved": torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else None,
    "adapted": sum(linear.outcome == "adapted" for linear in report.linears), "linears": len(report.linears),
    "tokens": {"safety": report.safety.tokens, "task": report.task.tokens},
    "images": {"safety": report.safety.images, "task": report.task.images},
    "versions": report.run.versions,
}))
"""


def run_merge(folder: Path, device: str, nproc: int) -> dict[str, Any]:
    """What a process that merges the pair says of itself, and its wall time; OUT is removed afterwards.

    Of several processes, the report of the first one says it, and not everything.
    """
    _remove_out(folder)
    os.sync()
    began = time.monotonic()
    if nproc > 1:
        command = [
            sys.executable,
            "-m",
            "hpa_merge",
            str(folder / "old"),
            str(folder / "new"),
            "-o",
            str(folder / "out"),
        ]
        command += ["--safety-calib", str(folder / "safety.jsonl"), "--task-calib", str(folder / "task.jsonl")]
        command += ["--device", device.partition(":")[0], "--nproc", str(nproc), "--no-page", "-q"]
        subprocess.run(command, check=True)
        wall = time.monotonic() - began
        report = json.loads((folder / "out" / "hpa_report.json").read_text(encoding="utf-8"))
        _remove_out(folder)
        return {"wall": wall, "processes": nproc, **_said(report)}
    command = [sys.executable, "-c", MERGE, str(folder), device]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.monotonic() - began
    _remove_out(folder)
    return {"wall": wall, **json.loads(result.stdout.splitlines()[-1])}


def _said(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report, as :data:`MERGE` prints them."""
    return {
        "seconds": report["run"]["seconds"],
        "importing": None,
        "host bytes": report["run"]["peak_host_bytes"],
        "host bytes after imports": None,
        "device bytes": report["run"]["peak_device_bytes"],
        "device bytes reserved": None,
        "adapted": sum(linear["outcome"] == "adapted" for linear in report["linears"]),
        "linears": len(report["linears"]),
        "tokens": {each: report[each]["tokens"] for each in ("safety", "task")},
        "images": {each: report[each]["images"] for each in ("safety", "task")},
        "versions": report["run"]["versions"],
    }


def _remove_out(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith((".out", "out")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nproc", type=int, default=1, help="processes, one for each GPU")
    parser.add_argument("--shape", choices=list(SHAPES), action="append", help="may be given again; default: both real")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    device = arguments.device
    everything: dict[str, Any] = {"machine": machine(device), "shapes": {}}
    print(", ".join(f"{key} {value}" for key, value in everything["machine"].items()), end="\n\n", flush=True)

    def note(name: str, results: dict[str, Any]) -> None:
        everything["shapes"][name] = results
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=2))

    failed = False
    make_pair(arguments.folder / "tiny", SHAPES["tiny"], device)
    run_merge(arguments.folder / "tiny", device, arguments.nproc)
    for name in arguments.shape or ["llava-7b", "llama-70b-block"]:
        folder = arguments.folder / name
        try:
            results = measure(folder, name, device, arguments.nproc, lambda so_far, name=name: note(name, so_far))
            note(name, results)
            print(table(name, results, SHAPES[name].target), end="\n\n", flush=True)
        except subprocess.CalledProcessError as error:  # its message has been seen
            print(f"{name}: the merge ended with status {error.returncode}", file=sys.stderr)
            failed = True
            continue
        failed |= any("missed" in row[-1] for row in figures(results, SHAPES[name].target))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
