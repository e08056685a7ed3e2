"""What several files of tests/cli share: merges to inspect, a tuning, a terminal of eighty columns."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, TinyCase
from chains import chain, with_evaluation
from evaluation_cases import jsonl
from report_samples import evaluation
from tunings import TOKENS, Job

from hpa_merge import HPAConfig, merge
from hpa_merge.evaluation import collecting, judges
from hpa_merge.evaluation.generate import LocalModel
from hpa_merge.evaluation.prompts import PromptFile


@pytest.fixture
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def outs(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three rounds of a LLaVA, the last by another method, and the statistics of the second."""
    folder = tmp_path_factory.mktemp("outs")
    rounds: list[dict[str, Any]] = [{}, {"p_max": 20.0, "stats": folder / "stats"}, {"method": "linear"}]
    case = tiny("llava")
    chain(case, folder, rounds)
    path = folder / "out1" / REPORT
    shutil.copy(path, folder / "untouched.json")
    with_evaluation(folder / "out1", evaluation("out1"))
    shutil.copytree(folder / "out2", folder / "again")
    return folder


@pytest.fixture(scope="session")
def told(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Prompts, with what a merge that restores everything says to each, and what NEW says, where these differ."""
    case, folder = tiny("llama"), tmp_path_factory.mktemp("told")
    texts = [f"how do i do the thing {n} times {n * n}?" for n in range(40)]
    prompts = [
        prompt.sample for prompt in PromptFile(jsonl(folder / "t.jsonl", *({"prompt": t} for t in texts)), "safety")
    ]
    config = HPAConfig(p_max=100, p_min=100, focus_ratio=1, orthogonal=False, device="cpu")
    merge(case.old, case.new, folder / "out", safety_calib=case.safety, task_calib=case.task, config=config)

    def said(model: Path) -> list[str]:
        device = torch.device("cpu")
        return LocalModel(model, prompts[0], device=device, max_new_tokens=TOKENS).answer(prompts)

    every = zip(texts, said(folder / "out"), said(case.new), strict=True)
    differing = [(text, back, new) for text, back, new in every if back != new and any(c.isalnum() for c in new)]
    assert len(differing) >= 12
    return differing[:14]


@pytest.fixture
def job(
    tiny: Callable[..., TinyCase],
    told: list[tuple[str, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Job:
    safe = {text: back for text, back, _ in told}
    (tmp_path / "own_judge.py").write_text(f"def unsafe(prompt, answer): return {safe!r}[prompt] != answer\n")
    monkeypatch.chdir(tmp_path)
    for module in (judges, collecting):
        monkeypatch.setattr(module, "fault_of", lambda answer: "")
    monkeypatch.delitem(sys.modules, "own_judge", raising=False)
    safety = jsonl(tmp_path / "safety.jsonl", *({"prompt": text} for text, _, _ in told[:6]))
    task = jsonl(tmp_path / "task.jsonl", *({"question": text, "answer": new} for text, _, new in told[6:]))
    return Job(tiny("llama"), tmp_path, safety, task)
