"""The post-alignment continual-tuning experiment: rules at several strengths, on several bases, on the CPU.

    python examples/continual_tuning [--bases 5] [--part NAME]... [--only METHOD]... [--out FOLDER]

Results go to FOLDER/results.jsonl, one line for each step; bases are kept in FOLDER. The same command after an
interruption resumes with what is missing. Tables and plots: ``python examples/continual_tuning/report.py FOLDER``.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: matrices this small gain nothing from a second one
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from bases import make_base
from chain import Chain, calm, run_chain
from methods import METHODS
from plans import PARTS, plan


def main() -> None:
    """Run what is missing."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    chains = plan(options.part, range(options.first, options.first + options.bases), options.only)
    done = finished(results)
    chains = [chain for chain in chains if chain.key not in done]
    print(f"{len(chains)} chains to run, {len(done)} are there")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, initializer=calm) as pool:
        bases = {(chain.setting.base, chain.base): chain.setting for chain in chains}
        for made in [pool.submit(make_base, options.out / "bases", seed, s) for (_, seed), s in bases.items()]:
            made.result()
        began = time.monotonic()
        waiting = [pool.submit(run_chain, chain, options.out) for chain in chains]
        try:
            for count, ended in enumerate(as_completed(waiting), start=1):
                _append(results, ended.result())
                print(f"{count} of {len(waiting)}, {time.monotonic() - began:.0f} s", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def finished(results: Path) -> set[tuple[Any, ...]]:
    """The chains that ``results`` holds; each is written in one piece."""
    if not results.exists():
        return set()
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[name] for name in Chain.KEY) for row in rows}


def _append(results: Path, rows: list[dict[str, Any]]) -> None:
    from hpa_merge.engine.machine import versions

    rows[0]["machine"] = {"processor": _processor(), "python": platform.python_version(), **versions()}
    with results.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _processor() -> str:
    """The processor's name, where the system tells it, and how many cores there are."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "continual_tuning", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bases", type=int, default=5, help="how many aligned models (5)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (0)")
    parser.add_argument("--only", action="append", choices=METHODS, metavar="METHOD", help="repeatable; all")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable; curves")
    parser.add_argument("--out", type=Path, default=Path("continual_tuning_runs"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (one a core)")
    options = parser.parse_args()
    options.only, options.part = options.only or list(METHODS), options.part or ["curves"]
    return options


if __name__ == "__main__":
    sys.exit(main())
