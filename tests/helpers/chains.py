"""Chains of merges: a model that is tuned and merged again and again, and what a slow computation says of its drift."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import REPORT, TinyCase
from reference import load_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hpa_merge import HPAConfig, MergeReport, merge


def tuned(folder: Path, into: Path, seed: int, size: float = 0.03) -> Path:
    """A copy of a checkpoint, report and all, of which every floating tensor has moved by about ``size`` of itself."""
    shutil.copytree(folder, into)
    perturb(into, seed, size)
    return into


def perturb(folder: Path, seed: int, size: float = 0.03) -> None:
    """Tune on in the same folder, and save over it."""
    random_numbers = torch.Generator().manual_seed(seed)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as shard:
            metadata = shard.metadata()
        tensors = load_file(path)
        for name, value in tensors.items():
            noise = torch.randn(value.shape, generator=random_numbers)
            tensors[name] = (value.float() * (1 + size * noise)).to(value.dtype)
        save_file(tensors, path, metadata)


def run(case: TinyCase, old: Path, new: Path, out: Path, **others: Any) -> MergeReport:
    options = {name: others.pop(name) for name in list(others) if name in HPAConfig.__dataclass_fields__}
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    if options.get("method") == "linear":
        calibration = {}
    return merge(old, new, out, **calibration, config=HPAConfig(**options), **others)


def with_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Put results of an evaluation into a report, as any program can."""
    path = folder / REPORT
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"evaluation": evaluation}, ensure_ascii=False), encoding="utf-8")


def chain(case: TinyCase, folder: Path, rounds: list[dict[str, Any]]) -> list[MergeReport]:
    """Merges one after the other: ``folder/out1`` from the pair, then each OUT tuned and merged again."""
    reports = [run(case, case.old, case.new, folder / "out1", **rounds[0])]
    for number, options in enumerate(rounds[1:], start=2):
        old = folder / f"out{number - 1}"
        new = tuned(old, folder / f"new{number}", seed=number)
        reports.append(run(case, old, new, folder / f"out{number}", **options))
    return reports


def distance(a: Path, b: Path, names: list[str]) -> tuple[float, float]:
    """``‖B − A‖_F`` and ``‖A‖_F`` over some linears, in float64 by numpy; of further rows in one of them nothing.

    A slice of a stack is called ``name[expert]``.
    """
    before, after = load_tensors(a), load_tensors(b)
    change = norm = 0.0
    for name in names:
        key, _, part = name.removesuffix("]").partition("[")
        x, y = (np.asarray(t[key].to(torch.float32).numpy(), dtype=np.float64) for t in (before, after))
        x, y = (x[int(part)], y[int(part)]) if part else (x, y)
        rows = min(len(x), len(y))
        change += float(((y[:rows] - x[:rows]) ** 2).sum())
        norm += float((x[:rows] ** 2).sum())
    return change**0.5, norm**0.5
