"""What the readings of the paper, and the rules that compute values, do to the model of ``hpa-merge demo``.

    python benchmarks/readings.py [--demo FOLDER]

Makes the demo unless its folder is given, and one OUT for each setting from one run of the samples. Prints the size of
the update, and of each OUT: its restored columns, how many of them the default does not restore, the mean of ``α``, the
share of the update's energy that is not NEW's, and how far all adapted weights together lie from the default's and from
NEW's, in units of the update.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hpa_merge import HPAConfig, MergeReport, calibrate, sweep
from hpa_merge.demo import make_demo
from hpa_merge.report.records import unpack_columns

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "--saliency product": {"saliency": "product"},
    "--hessian-scale sum": {"hessian_scale": "sum"},
    "--averaging log-mean": {"averaging": "log-mean"},
    "--depth-range one-based": {"depth_range": "one-based"},
    "--depth-range full": {"depth_range": "full"},
    "--orthogonal-by row": {"orthogonal_by": "row"},
    "--orthogonal-by column": {"orthogonal_by": "column"},
    "--no-orthogonal": {"orthogonal": False},
    "--excess keep": {"excess": "keep"},
    "--method regmean": {"method": "regmean"},
    "--method safe-delta": {"method": "safe-delta"},
}


def weights(folder: Path, names: list[str]) -> Tensor:
    """The tensors of those names in a checkpoint, one after the other, as one vector in float64."""
    found: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name).double().flatten() for name in {*names} & {*file.keys()}}
    return torch.cat([found[name] for name in names])


def restored(report: MergeReport) -> set[tuple[str, int]]:
    """The restored columns, each with the name of its weight."""
    masks = [(linear.name, linear.restored, linear.columns) for linear in report.linears]
    return {(name, column) for name, mask, columns in masks if mask for column in unpack_columns(mask, columns)}


def energy_not_news(report: MergeReport) -> str:
    """The share of the square of the update, over all weights, in what is not NEW's; empty with rules that mix."""
    adapted = [linear for linear in report.linears if linear.energy_restored is not None]
    squares = [((linear.relative_update or 0.0) * (linear.old_norm or 0.0)) ** 2 for linear in adapted]
    shares = [linear.energy_restored or 0.0 for linear in adapted]
    return f"{sum(s * e for s, e in zip(shares, squares, strict=True)) / sum(squares):.1%}" if adapted else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, help="a folder that hpa-merge demo has made (default: it is made)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, demo = Path(name), arguments.demo or Path(name) / "demo"
        if arguments.demo is None:
            make_demo(demo)
        calibrate(demo / "old", demo / "safety.jsonl", folder / "refused.jsonl")
        outs = {folder / setting.replace(" ", ""): HPAConfig(**options) for setting, options in SETTINGS.items()}
        calibration = {"safety_calib": folder / "refused.jsonl", "task_calib": demo / "task.jsonl"}
        reports = sweep(demo / "old", demo / "new", outs, page=False, **calibration)
        default, *_ = reports.values()
        names = [linear.name for linear in default.linears if linear.outcome == "adapted"]
        old, new, first = (weights(place, names) for place in (demo / "old", demo / "new", next(iter(reports))))
        size = float((new - old).norm())
        print(f"{platform.machine()}, torch {torch.__version__}, {time.strftime('%F')}: {len(names)} adapted weights,")
        print(f"the root mean square of their update is {size / len(new) ** 0.5:.4f}\n")
        print("| setting | restored columns | others | α | energy not NEW's | from the default | from NEW |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for setting, (out, report) in zip(SETTINGS, reports.items(), strict=True):
            columns, made = restored(report), weights(out, names)
            alphas = [linear.alpha for linear in report.linears if linear.alpha is not None]
            alpha = f"{sum(alphas) / len(alphas):.3f}" if alphas else ""
            print(
                f"| `{setting}` | {len(columns)} | {len(columns - restored(default))} | {alpha} "
                f"| {energy_not_news(report)} | {float((made - first).norm()) / size:.2f} "
                f"| {float((made - new).norm()) / size:.2f} |"
            )


if __name__ == "__main__":
    main()
