"""The post-alignment continual-tuning experiment: every method on several bases, from scratch, on the CPU.

    python examples/continual_tuning [--bases 5] [--only METHOD]... [--regime NAME]... [--out FOLDER]

Results go to FOLDER/results.jsonl, one line for each step; bases are kept in FOLDER. The same command after an
interruption goes on with what is missing. Tables and plots: ``python examples/continual_tuning/report.py FOLDER``.
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

from bases import Regime, make_base
from chain import Chain, calm, run_chain
from methods import METHODS

REGIMES = {
    "lora": Regime(),
    "full": Regime(tuning="full"),
    "decay": Regime(tuning="full", decay=10.0),
    "spread": Regime(tuning="full", spread=1.0),
    "spread-lora": Regime(spread=1.0),
    "deep": Regime(depth=8),
    "wide": Regime(width=256),
    "long": Regime(order=2 * Regime.order),
    "reduced": Regime(
        width=64, depth=3, lessons=0.25, haste=3.0, order=("colour", "count")
    ),  # what the test suite runs
}


def main() -> None:
    """Run what is missing."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    chains = [
        Chain(regime, REGIMES[regime], base, injected, method)
        for base in range(options.first, options.first + options.bases)
        for regime in options.regime
        for injected in options.injected
        for method in options.only
    ]
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
    return {(row["regime"], row["base"], row["injected"], row["method"]) for row in rows}


def _append(results: Path, rows: list[dict[str, Any]]) -> None:
    from hpa_merge.engine.machine import versions

    where = {"processor": _processor(), "python": platform.python_version(), **versions()}
    with results.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json.dumps({**row, "machine": where}, ensure_ascii=False) + "\n" for row in rows))


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
    parser.add_argument("--regime", action="append", choices=REGIMES, help="repeatable; lora")
    parser.add_argument("--injected", type=float, nargs="*", default=[0.0, 0.01], help="shares of harmful samples")
    parser.add_argument("--out", type=Path, default=Path("continual_tuning_runs"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (one a core)")
    options = parser.parse_args()
    options.only, options.regime = options.only or list(METHODS), options.regime or ["lora"]
    return options


if __name__ == "__main__":
    sys.exit(main())
