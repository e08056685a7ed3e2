"""Run a merge as one process or as several ranks, and collect what each says of itself."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MERGE = """
import json, os, sys, time
from collections import Counter
began = time.monotonic()
import torch
import hpa_merge
from hpa_merge.api import merge
from hpa_merge.engine import loop
from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.engine.machine import peak_host_bytes
from hpa_merge.engine.unit_merge import UnitMerge
from hpa_merge.engine.weights import Weights
from hpa_merge.ranks import Group

folder, device, trace = sys.argv[1:]
rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if count > 1:
    import torch.distributed
    if device.startswith("cuda"):
        device = "cuda"  # each its own, as with --nproc
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
parts = Counter()

def timing(owner, name, part):
    function = getattr(owner, name)
    def timed(*arguments, **options):
        start = time.monotonic()
        try:
            return function(*arguments, **options)
        finally:
            parts[part] += time.monotonic() - start
    setattr(owner, name, timed)

for owner, name, part in (
    (CalibrationRun, "run", "samples, with the gathering of what they read"),
    (Weights, "reader", "reading, and exchanging weights"),
    (loop, "exchange", "exchanging curvatures"),
    (UnitMerge, "__call__", "merging, of several ranks in a thread"),
    (Group, "gather", "agreeing, with the waiting for other ranks"),
):
    timing(owner, name, part)
if trace and rank == 0:
    merge_unit, units = loop._Loop._merge_unit, []
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.startswith("cuda") else []
    profiler = torch.profiler.profile(activities=kinds, record_shapes=True)
    def tracing(*arguments):
        units.append(arguments[1])
        if len(units) == 3:  # the first ones pay for what is loaded once
            profiler.start()
        merge_unit(*arguments)
        if len(units) == 4:
            profiler.stop()
            profiler.export_chrome_trace(trace)
    loop._Loop._merge_unit = tracing

imported, host = time.monotonic(), peak_host_bytes()
report = merge(folder + "/old", folder + "/new", folder + "/out", safety_calib=folder + "/safety.jsonl",
               task_calib=folder + "/task.jsonl", config=hpa_merge.HPAConfig(device=device), page=False)
cuda = device.startswith("cuda")
print(json.dumps({
    "seconds": time.monotonic() - imported, "importing": imported - began, "parts": parts,
    "host bytes": peak_host_bytes(), "host bytes after imports": host,
    "device bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
    "device bytes reserved": torch.cuda.max_memory_reserved(device) if cuda else None,
    "adapted": sum(linear.outcome == "adapted" for linear in report.linears), "linears": len(report.linears),
    "tokens": {"safety": report.safety.tokens, "task": report.task.tokens},
    "images": {"safety": report.safety.images, "task": report.task.images},
    "versions": report.run.versions,
}))
"""


def run_merge(folder: Path, device: str, nproc: int, trace: Path | None = None) -> dict[str, Any]:
    """What the first process that merges the pair says of itself, with what all say in ``ranks``, and the wall time.

    OUT is removed afterwards; ``out`` is a digest of its weights.

    Args:
        trace: where the first process writes what torch.profiler has seen of two units, as JSON in gzip.

    Raises:
        CalledProcessError: a process has failed; the others have been ended.
    """
    remove_out(folder)
    os.sync()
    began = time.monotonic()
    said = run_ranks([sys.executable, "-c", MERGE, str(folder), device, str(trace or "")], nproc)
    wall = time.monotonic() - began
    state = hashlib.sha256()
    for path in sorted((folder / "out").glob("*.safetensors")):
        with path.open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    remove_out(folder)
    return {"wall": wall, "processes": nproc, "out": state.hexdigest(), **said[0], "ranks": said}


def run_ranks(command: list[str], count: int) -> list[dict[str, Any]]:
    """Run ``command`` as so many ranks on this machine; the JSON in the last line that each prints, by rank.

    Raises:
        CalledProcessError: one has failed; the others have been ended.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name, str(rank)) for rank in range(count)]
        ranks = []
        for rank, path in enumerate(files):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with path.open("wb") as file:
                ranks.append(subprocess.Popen(command, env=shared | place if count > 1 else None, stdout=file))
        try:
            while None in (states := [each.poll() for each in ranks]) and not any(states):
                time.sleep(0.05)
            for each in ranks:
                if each.returncode:
                    raise subprocess.CalledProcessError(each.returncode, command)
        finally:
            for each in ranks:
                each.kill()
                each.wait()
        return [json.loads(path.read_text(encoding="utf-8").splitlines()[-1]) for path in files]


def remove_out(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith((".out", "out")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def compare_ranks(runs: dict[int, list[dict[str, Any]]]) -> str:
    """Tables of the median runs with each number of processes: how fast, how much memory; and the parts on each rank.

    The speed counts the merge, after imports, of the slowest rank.
    """
    lines = [
        "| processes | merge, slowest rank | times as fast | of the ideal | host of each | device of each | OUT |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    first = min(runs)
    base, wanted = _median(runs[first])["slowest"], runs[first][0]["out"]
    for count, of_count in sorted(runs.items()):
        run = _median(of_count)
        speed = base / run["slowest"]
        memory = [_sizes(run["ranks"], key) for key in ("host bytes", "device bytes")]
        same = "the same bytes" if all(each["out"] == wanted for each in of_count) else "**other bytes**"
        cells = [str(count), f"{run['slowest']:.2f} s", f"{speed:.2f}", f"{speed * first / count:.0%}", *memory, same]
        lines.append(f"| {' | '.join(cells)} |")
    ranks = [
        (count, *each) for count, of_count in sorted(runs.items()) for each in enumerate(_median(of_count)["ranks"])
    ]
    parts = dict.fromkeys(part for *_, each in ranks for part in each["parts"])
    lines += ["", f"| processes | rank | {' | '.join(parts)} |", "| --- | --- |" + " --- |" * len(parts)]
    for count, rank, each in ranks:
        seconds = (f"{each['parts'].get(part, 0.0):.2f} s" for part in parts)
        lines.append(f"| {count} | {rank} | {' | '.join(seconds)} |")
    return "\n".join(lines)


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run in the middle, by the merge of its slowest rank."""
    timed = [run | {"slowest": max(rank["seconds"] for rank in run["ranks"])} for run in runs]
    return sorted(timed, key=lambda run: run["slowest"])[len(timed) // 2]


def _sizes(ranks: list[dict[str, Any]], key: str) -> str:
    values = [each[key] for each in ranks]
    return "–" if None in values else f"{', '.join(f'{each / 1e9:.2f}' for each in values)} GB"
