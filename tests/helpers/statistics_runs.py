"""Merges with a statistics file, and what the tests of it look at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cases import TinyCase
from safetensors import safe_open

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.engine import memory as forecast
from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.files.statistics import MARK

TEXT = '{"text": "no. that would hurt people."}\n{"text": "1+2=3"}\n'


def run(case: TinyCase, out: Path, stats: Path | None = None, **options: Any) -> MergeReport:
    others = {name: options.pop(name) for name in ("resume", "overwrite", "on_progress") if name in options}
    calibration = {"safety_calib": case.safety, "task_calib": case.task}
    return merge(case.old, case.new, out, **calibration, config=HPAConfig(**options), stats=stats, **others)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def described(stats: Path) -> dict[str, Any]:
    with safe_open(stats, "pt") as handle:
        return json.loads(handle.metadata()[MARK])


def in_text(case: TinyCase, folder: Path, *purposes: str) -> TinyCase:
    for purpose in purposes:
        (folder / f"{purpose}.jsonl").write_text(TEXT)
    return case._replace(**{purpose: folder / f"{purpose}.jsonl" for purpose in purposes})


@pytest.fixture(name="started")
def started_roles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roles of the models whose samples were started."""
    roles: list[str] = []
    real = CalibrationRun.start

    def start(self: CalibrationRun) -> None:
        roles.append(self.role)
        real(self)

    monkeypatch.setattr(CalibrationRun, "start", start)
    return roles


def interrupt(case: TinyCase, out: Path, stats: Path | None, units: int, **options: Any) -> None:
    """A merge that is interrupted as soon as so many units are durable."""
    real, left = CheckpointWriter.commit, [units]

    def commit(self: CheckpointWriter, entry: Any) -> None:
        real(self, entry)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "QUEUE", 0)  # nothing is written behind: the run stops at that very commit
        patch.setattr(CheckpointWriter, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            run(case, out, stats, **options)
    assert (out.parent / f"{out.name}.partial").is_dir()
