"""What ``--compute-dtype float32`` changes in the scores of a bfloat16 pair, next to what another processor changes.

    python benchmarks/dtypes.py PAIR...

PAIR is a folder with old/, new/, safety.jsonl and task.jsonl, as ``hpa-merge demo`` makes it; weights of another dtype
are cast to bfloat16 first. Each pair is merged three times, in processes of their own: in bfloat16; in bfloat16 with
the instructions of an older processor (``ONEDNN_MAX_CPU_ISA=AVX512_CORE``), which multiplies in another order; and in
float32. Prints, against the first: the share of restored columns that differ, the relative differences of ``[H⁻¹]_jj``
(median and 99th percentile over all columns), of ``κ`` (largest), and of the weights, in units of the update.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpa_merge import MergeReport
from hpa_merge.report.records import unpack_columns
from hpa_merge.report.schema import read_report

OLDER = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}

RUNS = {
    "bfloat16": ("bfloat16", {}),
    "bfloat16, older processor": ("bfloat16", OLDER),
    "float32": ("float32", {}),
}


def cast(folder: Path, to: Path) -> Path:
    """The checkpoint in bfloat16."""
    to.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            save_file({name: value.bfloat16() for name, value in load_file(path).items()}, to / path.name)
        elif path.name == "config.json":
            (to / path.name).write_text(path.read_text().replace('"float32"', '"bfloat16"'))
        elif path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    return to


def merge(pair: Path, models: list[Path], out: Path, dtype: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hpa_merge", *map(str, models), "-o", str(out), "--device", "cpu", "--no-page"]
    command += ["--safety-calib", str(pair / "safety.jsonl"), "--task-calib", str(pair / "task.jsonl"), "-q"]
    command += ["--stats", f"{out}.stats", "--compute-dtype", dtype]
    subprocess.run(command, check=True, env=os.environ | environment)


def restored(report: MergeReport) -> set[tuple[str, int]]:
    return {
        (linear.name, column)
        for linear in report.linears
        if linear.restored
        for column in unpack_columns(linear.restored, linear.columns)
    }


def weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return float(sum((first[name] - second[name]).square().sum() for name in first) ** 0.5)


def compared(here: Path, first: str, second: str, update: float) -> list[str]:
    """The cells of a row."""
    reports = [read_report(here / name) for name in (first, second)]
    columns = [restored(report) for report in reports]
    diagonals = [load_file(here / f"{name}.stats") for name in (first, second)]
    differences = torch.cat([(diagonals[1][n] / diagonals[0][n] - 1.0).abs() for n in diagonals[0]])
    kappas = [{each.name: each.kappa for each in report.linears} for report in reports]
    kappa = max(abs(kappas[1][n] / kappas[0][n] - 1.0) for n in kappas[0] if kappas[0][n])
    moved = distance(weights(here / first), weights(here / second)) / update
    return [
        f"{len(columns[0] - columns[1]) / len(columns[0]):.2%} of {len(columns[0])}",
        f"{differences.median():.1e}",
        f"{differences.quantile(0.99):.1e}",
        f"{kappa:.1e}",
        f"{moved:.1e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", type=Path, nargs="+")
    print("| pair | run | other columns | h: median | h: 99 % | κ: most | OUT, of the update |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for pair in parser.parse_args().pair:
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch)
            models = [cast(pair / name, here / name) for name in ("old", "new")]
            for name, (dtype, environment) in RUNS.items():
                merge(pair, models, here / name, dtype, environment)
            update = distance(*map(weights, models))
            kind = json.loads((models[0] / "config.json").read_text())["model_type"]
            names = list(RUNS)
            for name in names[1:]:
                cells = [f"{pair.name} ({kind})", name, *compared(here, names[0], name, update)]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
