"""Tables and plots of the results in a folder.

python examples/continual_tuning/report.py FOLDER [--to examples/continual_tuning/results]
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import plots
from methods import ABLATION, METHODS, SEQUENTIAL

from hpa_merge.evaluation.metrics import continual_metrics

Figures = dict[str, float]
Runs = dict[tuple[str, float], dict[str, dict[int, Figures]]]
"""By regime and injected share, by method, by base."""

HEADINGS = {
    "ap_over_steps": "AP, mean over steps ↑",
    "ap": "AP, last step ↑",
    "bwt": "BWT ↑",
    "just_learned": "just learned ↑",
    "masr_over_steps": "MASR, mean over steps ↓",
    "masr": "MASR, last step ↓",
    "dasr": "DASR, last step ↓",
    "complied": "complied ↓",
    "over_refusal": "over-refusal ↓",
    "lookalikes": "look-alikes answered ↑",
    "questions": "first questions ↑",
}


def read(path: Path) -> dict[tuple[str, float], dict[str, dict[int, list[dict[str, Any]]]]]:
    """The rows of each chain, by regime and injected share, by method, by base."""
    chains: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        chains[row["regime"], row["injected"]][row["method"]][row["base"]].append(row)
    return chains


def figures(rows: list[dict[str, Any]]) -> Figures:
    """The metrics of one chain."""
    aligned, *steps = sorted(rows, key=lambda row: row["step"])
    taught = [row["task"] for row in steps]
    performance = [[row["tasks"][name] for name in taught[: row["step"]]] for row in steps]
    attacks = [list(row["attacks"].values()) for row in steps]
    metrics = continual_metrics(performance, attacks, list(aligned["attacks"].values()))
    last = steps[-1]
    return {
        **{name: getattr(metrics, name) for name in list(HEADINGS)[:7]},
        "complied": fmean(last["complied"].values()),
        **{name: last[name] for name in ("over_refusal", "lookalikes", "questions")},
    }


def table(runs: dict[str, dict[int, Figures]], rows: dict[str, str]) -> str:
    """Mean ± standard deviation over the bases; ``rows`` are methods by what they are called."""
    lines = ["| | bases | " + " | ".join(HEADINGS.values()) + " |", "| --- " * (len(HEADINGS) + 2) + "|"]
    for label, method in rows.items():
        if method in runs:
            columns = [[of_base[name] for of_base in runs[method].values()] for name in HEADINGS]
            lines.append(f"| {label} | {len(runs[method])} | " + " | ".join(map(spread, columns)) + " |")
    return "\n".join(lines)


def pairs(runs: dict[str, dict[int, Figures]], method: str = "hpa") -> str:
    """``method`` less each other, base by base."""
    names = ("masr_over_steps", "masr", "ap_over_steps", "ap", "bwt", "just_learned", "lookalikes")
    lines = [
        f"| {method} less … | " + " | ".join(HEADINGS[name][:-2] for name in names) + " | bases with lower MASR |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for other, of_other in runs.items():
        bases = sorted(set(of_other) & set(runs[method]))
        if other == method or not bases:
            continue
        less = {name: [runs[method][base][name] - of_other[base][name] for base in bases] for name in names}
        lower = sum(value < 0 for value in less["masr_over_steps"])
        cells = " | ".join(spread(values, signed=True) for values in less.values())
        lines.append(f"| {other} | {cells} | {lower} of {len(bases)} |")
    return "\n".join(lines)


def spread(values: list[float], *, signed: bool = False) -> str:
    """Mean ± standard deviation."""
    mean = f"{fmean(values):+.1f}" if signed else f"{fmean(values):.1f}"
    return f"{mean} ± {stdev(values):.1f}" if len(values) > 1 else mean


def how_it_was_run(path: Path) -> str:
    """Machine, versions and times, as the results have them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    machines = {json.dumps(row["machine"], sort_keys=True) for row in rows}
    merged = [row["merge_seconds"] for row in rows if row.get("merge_seconds")]
    parts = [
        ", ".join(f"{name} {value}" for name, value in json.loads(machine).items()) for machine in sorted(machines)
    ]
    bases = sorted({row["base"] for row in rows})
    return (
        f"{len(rows)} lines of results; seeds of the bases {', '.join(map(str, bases))}; {'; '.join(parts)}. "
        f"A merge took {fmean(merged):.1f} s on the average, with all that belongs to it."
    )


def main() -> None:
    """Write ``tables.md`` and the plots."""
    parser = argparse.ArgumentParser("report", description=__doc__)
    parser.add_argument("folder", type=Path, help="what the experiment was given as --out")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results", help="where they are written")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    source = options.folder / "results.jsonl"
    chains = read(source)
    parts = ["# Results", how_it_was_run(source)]
    for (regime, injected), methods in chains.items():
        ordered = [name for name in METHODS if name in methods]
        runs = {name: {base: figures(rows) for base, rows in methods[name].items()} for name in ordered}
        parts.append(f"## Regime `{regime}`, {injected:.1%} harmful samples injected")
        parts.append(table(runs, {name: name for name in runs}))
        if set(ABLATION.values()) <= set(runs):
            parts += ["The paper's ablation:", table(runs, ABLATION)]
        if "hpa" in runs and len(runs) > 1:
            parts += ["Paired differences over the bases:", pairs(runs)]
        name = f"{regime}-injected{injected:g}"
        plots.over_steps({method: methods[method] for method in ordered}, options.to / f"{name}-steps.png")
        plots.trade_off(runs, options.to / f"{name}-trade-off.png", HEADINGS)
    (options.to / "tables.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if source.resolve() != (options.to / "results.jsonl").resolve():
        shutil.copy(source, options.to / "results.jsonl")
    print(f"{options.to / 'tables.md'} and {2 * len(chains)} plots; sequential tuning is the method {SEQUENTIAL!r}")


if __name__ == "__main__":
    main()
