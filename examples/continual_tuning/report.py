"""Tables and plots of the results in a folder.

python examples/continual_tuning/report.py FOLDER [--to examples/continual_tuning/results]
"""

import argparse
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import fronts
import plots
from methods import ABLATION, FROZEN, HPA, METHODS, SEQUENTIAL, SWEEPS

from hpa_merge.evaluation.metrics import continual_metrics

Figures = dict[str, float]
Runs = dict[str, dict[int, Figures]]
"""By method, by base."""

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
PAIRED = ("masr_over_steps", "masr", "ap_over_steps", "ap", "bwt", "just_learned", "lookalikes")
LIMIT = 25.0
"""The attack success rate, percent, within which the table of fronts gives the best AP."""


class Setting(NamedTuple):
    """What the chains of one table have in common."""

    regime: str
    injected: float
    safety_samples: int
    safety_from: str

    @property
    def usual(self) -> bool:
        """Whether the calibration is as in most parts."""
        return (self.safety_samples, self.safety_from) == (8, "first")

    @property
    def title(self) -> str:
        """As a heading."""
        title = f"Regime `{self.regime}`, {self.injected:.1%} harmful samples injected"
        if not self.usual:
            whose = "OLD's refusals" if self.safety_from == "old" else "the first model's refusals"
            title += f", {self.safety_samples} safety samples with {whose}"
        return title


def read(path: Path) -> dict[Setting, dict[str, dict[int, list[dict[str, Any]]]]]:
    """The rows of each chain, by setting, by method, by base."""
    chains: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        chains[Setting(*(row[name] for name in Setting._fields))][row["method"]][row["base"]].append(row)
    for setting, methods in chains.items():
        for end in (SEQUENTIAL, FROZEN):  # the samples of the merges are nothing to them
            if not setting.usual and end in (usual := chains.get(Setting(*setting[:2], 8, "first"), {})):
                methods[end] = usual[end]
    order = [SEQUENTIAL, *METHODS, FROZEN]
    return {key: {name: of[name] for name in order if name in of} for key, of in sorted(chains.items())}


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


def table(runs: Runs, rows: dict[str, str]) -> str:
    """Mean ± standard deviation over the bases; ``rows`` are methods by what they are called."""
    lines = ["| | bases | " + " | ".join(HEADINGS.values()) + " |", "| --- " * (len(HEADINGS) + 2) + "|"]
    for label, method in rows.items():
        if method in runs:
            columns = [[of_base[name] for of_base in runs[method].values()] for name in HEADINGS]
            lines.append(f"| {label} | {len(runs[method])} | " + " | ".join(map(spread, columns)) + " |")
    return "\n".join(lines)


def pairs(runs: Runs, method: str = HPA) -> str:
    """Each other method less ``method``, base by base."""
    headings = [f"… less {method}", "bases", *(HEADINGS[name][:-2] for name in PAIRED), "bases with lower MASR"]
    lines = ["| " + " | ".join(headings) + " |", "| --- " * len(headings) + "|"]
    for other, of_other in runs.items():
        bases = sorted(set(of_other) & set(runs[method]))
        if other == method or not bases:
            continue
        less = {name: [of_other[base][name] - runs[method][base][name] for base in bases] for name in PAIRED}
        lower = sum(value < 0 for value in less["masr_over_steps"])
        cells = " | ".join(map(difference, less.values()))
        lines.append(f"| {other} | {len(bases)} | {cells} | {lower} of {len(bases)} |")
    return "\n".join(lines)


def curves(runs: Runs, performance: str = "ap_over_steps") -> dict[str, dict[int, list[fronts.Point]]]:
    """The curve of each rule on each base: from sequential tuning over its strengths to the frozen model.

    The bases are those that HPA has run on; a strength counts if it has run on all of them.
    """
    found: dict[str, dict[int, list[fronts.Point]]] = {}
    bases = runs.get(HPA, {}).keys()
    if not bases or not all(end in runs and bases <= runs[end].keys() for end in (SEQUENTIAL, FROZEN)):
        return {}
    for rule, sweep in SWEEPS.items():
        if strengths := [name for name in sweep if name in runs and bases <= runs[name].keys()]:
            names = [SEQUENTIAL, *strengths, FROZEN]
            found[rule] = {
                base: [(runs[name][base]["masr_over_steps"], runs[name][base][performance]) for name in names]
                for base in sorted(bases)
            }
    return found


def front_table(runs: Runs) -> str:
    """The fronts of the rules, less HPA's, paired over the bases."""
    headings = (
        "area, AP",
        "less HPA's",
        "area, just learned",
        "less HPA's",
        f"MASR at the AP of `{HPA}`, less its own",
        f"AP at the MASR of `{HPA}`, less its own",
        f"AP within a MASR of {LIMIT:g} %",
        "less HPA's",
    )
    lines = ["| rule | bases | " + " | ".join(headings) + " |", "| --- " * (len(headings) + 2) + "|"]
    by_ap, by_learned = curves(runs), curves(runs, "just_learned")
    own = runs.get(HPA, {})
    for rule, of_rule in by_ap.items():
        areas = [{base: fronts.area(curve) for base, curve in found[rule].items()} for found in (by_ap, by_learned)]
        others = [{base: fronts.area(curve) for base, curve in found["hpa"].items()} for found in (by_ap, by_learned)]
        within = {base: fronts.best_within(curve, LIMIT) for base, curve in of_rule.items()}
        within_hpa = {base: fronts.best_within(curve, LIMIT) for base, curve in by_ap["hpa"].items()}
        safer = {base: fronts.safest_from(curve, own[base]["ap_over_steps"]) for base, curve in of_rule.items()}
        better = {base: fronts.best_within(curve, own[base]["masr_over_steps"]) for base, curve in of_rule.items()}
        masr, ap = ({base: own[base][name] for base in of_rule} for name in ("masr_over_steps", "ap_over_steps"))
        cells = []
        for mine, hpa in zip(areas, others, strict=True):
            cells += [spread(list(mine.values())), difference(fronts.less(mine, hpa))]
        cells += [counted(safer, masr), counted(better, ap)]
        cells += [spread([value for value in within.values() if value is not None]), counted(within, within_hpa)]
        lines.append(f"| {rule} | {len(of_rule)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def counted(these: Mapping[int, float | None], those: Mapping[int, float | None]) -> str:
    """The mean difference and its interval; how many bases have it, if not all."""
    values = fronts.less(these, those)
    if not values:
        return "never reached"
    return difference(values) + (f" ({len(values)} of {len(these)})" if len(values) < len(these) else "")


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    mean = f"{fmean(values):.1f}"
    return f"{mean} ± {stdev(values):.1f}" if len(values) > 1 else mean


def difference(values: list[float]) -> str:
    """Mean of paired differences and its 95 % confidence interval."""
    mean, half = fronts.interval(values)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]" if len(values) > 1 else f"{mean:+.1f}"


def how_it_was_run(path: Path) -> str:
    """Machine, versions and times, as the results have them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    machines = {json.dumps(row["machine"], sort_keys=True) for row in rows if "machine" in row}
    merged = [row["merge_seconds"] for row in rows if row.get("merge_seconds")]
    parts = [
        ", ".join(f"{name} {value}" for name, value in json.loads(machine).items()) for machine in sorted(machines)
    ]
    bases = sorted({row["base"] for row in rows})
    return (
        f"{len(rows)} lines of results; seeds of the bases {', '.join(map(str, bases))}; {'; '.join(parts)}. "
        f"A merge took {fmean(merged):.1f} s on the average, with all that belongs to it, next to other work.\n\n"
        "Values are means ± standard deviations over the bases. Differences are paired over the bases and have 95 % "
        "confidence intervals (Student's t). The area under a front is the mean, over all limits of the MASR from 0 to "
        "100 %, of the best performance within the limit (`fronts.py`)."
    )


def main() -> None:
    """Write ``tables.md`` and the plots."""
    parser = argparse.ArgumentParser("report", description=__doc__)
    parser.add_argument("folder", type=Path, help="what the experiment was given as --out")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results", help="where they are written")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    source = options.folder / "results.jsonl"
    parts = ["# Results", how_it_was_run(source)]
    drawn: dict[str, dict[str, dict[int, list[fronts.Point]]]] = {}
    for setting, methods in read(source).items():
        runs = {name: {base: figures(rows) for base, rows in bases.items()} for name, bases in methods.items()}
        parts.append(f"## {setting.title}")
        parts.append(table(runs, {name: name for name in runs}))
        if set(ABLATION.values()) <= set(runs):
            parts += ["The paper's ablation:", table(runs, ABLATION)]
        if HPA in runs:
            parts += ["Paired differences:", pairs(runs)]
        if len(found := curves(runs)) > 1:
            parts += ["Fronts:", front_table(runs)]
            if setting.usual:
                drawn[f"{setting.regime}, {setting.injected:.1%} injected"] = found
    plots.draw_fronts(drawn, options.to / "fronts.png")
    (options.to / "tables.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if source.resolve() != (options.to / "results.jsonl").resolve():
        shutil.copy(source, options.to / "results.jsonl")
    print(f"{options.to / 'tables.md'} and {options.to / 'fronts.png'}")


if __name__ == "__main__":
    main()
