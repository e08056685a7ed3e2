"""Merges with a statistics file, and what the tests of it look at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import TinyCase
from safetensors import safe_open

from hpa_merge import HPAConfig, MergeReport, merge
from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.engine.statistics_file import MARK

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
