"""Time and memory of hpa-merge beside those of other tools, on one pair of checkpoints, and what no tool can undercut.

    python benchmarks/compare.py [--layers 24] [--samples 128] [--runs 5] [--only NAME...] [--folder DIR] [--json FILE]

Makes the pair (checkpoints.py), installs the peers (peers.py), and runs every contestant in a process of its own with
two threads, in rounds, each round beginning with another contestant; the floors (floors.py) are measured in every round
too. Before each run its inputs are read, so that they lie in the page cache, and what was written before is synced; its
output is checked and removed afterwards. Time, CPU time and peak memory are what the kernel says of the process and its
children. Exits with status 1 if a contestant failed.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import floors
import peers

THREADS = 2

OURS = ("hpa-merge", "hpa-merge --stats")

NAMES = (*OURS, "mergekit linear", "mergekit ties", "llm-compressor SparseGPT")


class Failed(Exception):
    pass


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float
    peak: int
    """Bytes."""


@dataclass(frozen=True)
class Contestant:
    name: str
    command: Callable[[Path], list[str]]
    """The words of the command that writes OUT."""


def run(command: list[str], log: Path) -> Run:
    """A command in a process of its own, measured by the kernel; its output goes to the log."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"status {process.returncode}:\n{log.read_text(errors='replace')[-600:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def weigh(folder: Path) -> int:
    """Bytes of the weights in a checkpoint."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def warm(inputs: Path) -> None:
    """Reads the inputs, so that they lie in the page cache, and waits for what is still to be written."""
    os.sync()
    buffer = bytearray(16 << 20)
    for path in inputs.glob("*/*"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def compete(contestant: Contestant, inputs: Path, folder: Path) -> Run:
    """One run; OUT has to hold as many bytes of weights as NEW, but for the headers."""
    out, log = folder / "out", folder / "log"
    shutil.rmtree(out, ignore_errors=True)
    command = contestant.command(out)
    warm(inputs)
    try:
        result = run(command, log)
        if weigh(out) < 0.99 * weigh(inputs / "new"):
            raise Failed(f"it wrote {weigh(out)} bytes of weights:\n{log.read_text(errors='replace')[-600:]}")
        return result
    finally:
        shutil.rmtree(out, ignore_errors=True)


def measure_floors(inputs: Path, folder: Path) -> dict[str, float]:
    figures = folder / "floors.json"
    program = str(Path(__file__).with_name("floors.py"))
    run([sys.executable, program, str(inputs), "--json", str(figures)], folder / "log")
    return json.loads(figures.read_text())


def make_contestants(names: list[str], inputs: Path, folder: Path, environments: dict[str, Path]) -> list[Contestant]:
    """Those of that name, in order."""
    merge = [shutil.which("hpa-merge", path=str(Path(sys.executable).parent)) or "hpa-merge"]
    merge += [str(inputs / "old"), str(inputs / "new"), "--task-samples", "1000000", "--device", "cpu", "--no-page"]
    merge += ["--safety-calib", str(inputs / "safety.jsonl"), "--task-calib", str(inputs / "task.jsonl")]
    reuse = [*merge, "--stats", str(folder / "stats")]
    kit, compressor = environments.get("mergekit", Path()), environments.get("llm-compressor", Path())
    commands: dict[str, Callable[[Path], list[str]]] = {
        "hpa-merge": lambda out: [*merge, "-o", str(out)],
        "hpa-merge --stats": lambda out: [*reuse, "-o", str(out)],
        "mergekit linear": functools.partial(peers.mergekit_command, kit, peers.LINEAR, inputs),
        "mergekit ties": functools.partial(peers.mergekit_command, kit, peers.TIES, inputs),
        "llm-compressor SparseGPT": functools.partial(peers.sparsegpt_command, compressor, inputs),
    }
    return [Contestant(name, commands[name]) for name in names]


def compare(
    contestants: list[Contestant], inputs: Path, folder: Path, rounds: int
) -> tuple[dict[str, list[Run]], list[dict[str, float]], dict[str, str]]:
    """Runs by contestant, the floors of each round, and why a contestant had to be left out."""
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    measured: list[dict[str, float]] = []
    failures: dict[str, str] = {}

    def attempt(contestant: Contestant) -> Run | None:
        try:
            result = compete(contestant, inputs, folder)
        except Failed as reason:
            failures[contestant.name] = str(reason)
            note(f"  {contestant.name}: failed")
            return None
        note(f"  {contestant.name}: {result.wall:.1f} s, {result.cpu:.1f} s CPU, {result.peak >> 20} MiB")
        return result

    for contestant in contestants:
        if contestant.name == "hpa-merge --stats":
            note("before: a run that computes the statistics, not counted")
            attempt(contestant)
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        if not measured or any(contestant.name == "hpa-merge" for contestant in contestants):
            measured.append(measure_floors(inputs, folder))
        shift = number % len(contestants)
        for contestant in contestants[shift:] + contestants[:shift]:
            if contestant.name not in failures and (result := attempt(contestant)):
                runs[contestant.name].append(result)
    return {name: done for name, done in runs.items() if name not in failures}, measured, failures


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def median(runs: list[Run], field: str) -> float:
    return statistics.median(getattr(run, field) for run in runs)


def table(runs: dict[str, list[Run]]) -> str:
    lines = ["| | time | least | CPU time | peak memory |", "| --- | --- | --- | --- | --- |"]
    for name, mine in runs.items():
        lines.append(
            f"| {name} | {median(mine, 'wall'):.1f} s | {min(run.wall for run in mine):.1f} s | "
            f"{median(mine, 'cpu'):.1f} s | {median(mine, 'peak') / 2**20:.0f} MiB |"
        )
    return "\n".join(lines)


def ratios(runs: dict[str, list[Run]]) -> str:
    """What ours take, relative to the others; under 1 is better."""
    lines = ["| ours | relative to | time | CPU time | peak memory |", "| --- | --- | --- | --- | --- |"]
    for ours in (name for name in OURS if name in runs):
        for name in (name for name in runs if name not in OURS):
            shares = (median(runs[ours], field) / median(runs[name], field) for field in ("wall", "cpu", "peak"))
            lines.append(f"| {ours} | {name} | {' | '.join(f'{share:.2f}' for share in shares)} |")
    return "\n".join(lines)


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def describe_machine() -> dict[str, str | int]:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory GiB": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def own_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("hpa-merge", "torch", "transformers", "safetensors")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--samples", type=int, default=128, help="of the task")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    parser.add_argument("--peers", type=Path, default=peers.FOLDER, help="where the virtual environments are kept")
    parser.add_argument("--json", type=Path, help="write every run's figures there")
    arguments = parser.parse_args()

    needed = [peer for peer in peers.PACKAGES if any(name.startswith(peer) for name in arguments.only)]
    environments = {peer: peers.ensure(peer, arguments.peers) for peer in needed}
    versions = {"hpa-merge": own_versions()} | {peer: peers.versions(home) for peer, home in environments.items()}
    machine = describe_machine()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        inputs = folder / "inputs"
        maker = [sys.executable, str(Path(__file__).with_name("checkpoints.py")), str(inputs)]
        sizes = ["--layers", str(arguments.layers), "--samples", str(arguments.samples)]
        note("making the checkpoints")
        subprocess.run([*maker, *sizes], check=True)
        contestants = make_contestants(arguments.only, inputs, folder, environments)
        runs, found, failures = compare(contestants, inputs, folder, arguments.runs)
    floor = middle(found)

    print(
        f"{arguments.layers} layers in the shape of Qwen2.5-0.5B, bfloat16, {arguments.samples} task samples of "
        f"256 tokens; medians of {arguments.runs} runs, {time.strftime('%Y-%m-%d')}"
    )
    print(", ".join(f"{key} {value}" for key, value in machine.items()) + f", {THREADS} threads")
    for name, packages in versions.items():
        print(f"{name}: " + ", ".join(f"{package} {version}" for package, version in packages.items()))
    print(f"\n{table(runs)}\n")
    if not set(OURS).isdisjoint(runs) and not set(runs) <= set(OURS):
        print(f"{ratios(runs)}\n")
    print(f"{floors.table(floor)}\n")
    for name in OURS:
        if name in runs:
            key = "disk" if "--stats" in name else "arithmetic"
            print(f"{name}: {median(runs[name], 'wall') / floor[key]:.2f} times the floor of its {key}")
    for name, reason in failures.items():
        print(f"{name}: failed, {reason}")
    if arguments.json:
        figures = {name: [vars(run) for run in mine] for name, mine in runs.items()}
        settings = {"layers": arguments.layers, "samples": arguments.samples, "threads": THREADS}
        content = {"machine": machine, "versions": versions, **settings, "runs": figures, "floors": found}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
