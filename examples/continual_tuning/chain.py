"""The loop that is measured: tune, merge, tune what was merged."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import tasks
import torch
from bases import Regime, load, make_base, refusals
from methods import FROZEN, METHODS, SEQUENTIAL
from scoring import measure
from transformers.utils import logging
from tuning import SAMPLES, task_seed, tune

import hpa_merge
from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import write_samples

TASK_SAMPLES = 128


@dataclass(frozen=True)
class Chain:
    """One base, one method, all tasks.

    Attributes:
        regime: the name of ``setting``, in the results.
        injected: the share of the tuning samples that are harmful requests with the answers that they ask for.
        method: a key of :data:`methods.METHODS`, or an end of the curves.
        safety_samples: how many safety samples the merges get.
        safety_from: whose refusals they have: those of the ``first`` model, or of ``old``, made anew in each step.
    """

    KEY: ClassVar = ("regime", "base", "injected", "method", "safety_samples", "safety_from")

    regime: str
    setting: Regime
    base: int
    injected: float
    method: str
    safety_samples: int = 8
    safety_from: str = "first"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells its results from those of others."""
        return tuple(getattr(self, name) for name in self.KEY)


def calm() -> None:
    """One thread in each process, one session of merges until it ends, and no messages of others."""
    hpa_merge.session().__enter__()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def run_chain(chain: Chain, folder: Path) -> list[dict[str, Any]]:
    """The results of the aligned model (step 0) and after each step; bases and first steps are kept in ``folder``."""
    aligned = make_base(folder / "bases", chain.base, chain.setting)
    common = dict(zip(chain.KEY, chain.key, strict=True))
    rows = [{**common, "step": 0, **measure(aligned, chain.base, [])}]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        safety = work / "safety.jsonl"
        _write_refusals(safety, aligned, chain)
        old = aligned
        for step in range(1, len(chain.setting.order) + 1):
            old, row = _step(chain, folder, work, step, old, safety)
            rows.append({**common, "step": step, **row})
    return rows


def _write_refusals(path: Path, model: Path, chain: Chain) -> None:
    """Write the safety set with the refusals of a model; if it does not refuse at all any more, leave the set as is."""
    with alone(chain.base):
        if samples := refusals(*load(model), Random(f"safety {chain.base}"), chain.safety_samples):
            write_samples(path, samples)


def _step(chain: Chain, folder: Path, work: Path, step: int, old: Path, safety: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that the next step begins with, and what was measured; what is not needed any more is removed."""
    began = time.monotonic()
    name, learned = chain.setting.order[step - 1], list(dict.fromkeys(chain.setting.order[:step]))
    if chain.method == FROZEN:
        return old, {**measure(old, chain.base, learned), "task": name}
    seed = task_seed(chain.base, step)
    samples = tasks.make_task(name, Random(seed), SAMPLES, chain.injected)
    first = f"{chain.regime}-seed{chain.base}-injected{chain.injected:g}"
    new = folder / "tuned" / first if step == 1 else work / f"new{step}"  # all methods share the first step
    tune(old, new, samples, chain.setting, seed)
    tuned, merge_seconds, report = time.monotonic(), 0.0, None
    out = new
    if chain.method != SEQUENTIAL:
        task, out, began_merge = work / f"task{step}.jsonl", work / f"out{step}", time.monotonic()
        write_samples(task, samples[:TASK_SAMPLES])
        if chain.safety_from == "old":
            _write_refusals(safety, old, chain)
        options = {**METHODS[chain.method], "safety_samples": chain.safety_samples}
        config = hpa_merge.HPAConfig(**options, device="cpu")
        report = hpa_merge.merge(old, new, out, safety_calib=safety, task_calib=task, config=config, page=False)
        merge_seconds = time.monotonic() - began_merge
    row = measure(out, chain.base, learned)
    row |= {"task": name, "tune_seconds": round(tuned - began, 2), "merge_seconds": round(merge_seconds, 2)}
    if report is not None:
        row |= _of_report(report)
    for folder_done in (old, new):
        if folder_done.parent == work and folder_done != out:
            shutil.rmtree(folder_done)
    return out, row


def _of_report(report: hpa_merge.MergeReport) -> dict[str, float]:
    """Means over the adapted linears of what the merge says of them."""
    figures: dict[str, float] = {}
    for name in ("relative_update", "energy_restored", "kappa", "alpha"):
        values = [abs(v) for linear in report.linears if (v := getattr(linear, name, None)) is not None]
        if values:
            figures[name] = float(f"{sum(values) / len(values):.4g}")
    return figures
