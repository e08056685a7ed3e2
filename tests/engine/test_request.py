"""The request: the same from the command line and from Python, and refused at once where it cannot be met."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hpa_merge.api
import hpa_merge.engine.run
from hpa_merge import HPAConfig, merge, sweep
from hpa_merge.cli import main
from hpa_merge.engine.request import Limits, MergeRequest
from hpa_merge.errors import ConfigError

CALIBRATION = {"safety_calib": Path("s.jsonl"), "task_calib": Path("t.jsonl")}
WORDS = ["--safety-calib", "s.jsonl", "--task-calib", "t.jsonl"]


class Asked(Exception):
    """Somebody asks for a merge."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[MergeRequest]:
    """What is asked for, instead of being made."""
    requests: list[MergeRequest] = []

    def merge_all(request: MergeRequest, *_: object) -> None:
        requests.append(request)
        raise Asked

    monkeypatch.setattr(hpa_merge.api, "merge_all", merge_all)
    monkeypatch.setattr(hpa_merge.engine.run, "merge_all", merge_all)
    monkeypatch.setattr("hpa_merge.cli.merging.refuse_early", lambda *_, **__: None)  # the folders are not there
    return requests


def ask(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with pytest.raises((Asked, SystemExit)):
        call(*arguments, **options)


def test_the_command_asks_for_what_python_does(asked: list[MergeRequest]) -> None:
    limits = {"max_memory": 10**9, "max_host_memory": 2 * 10**9}
    given = {"vision_tower": "tower", "stats": "stats", "first": "org/first", "resume": True, "page": False}
    ask(merge, "old", "new", "out", config=HPAConfig(p_max=20.0), **CALIBRATION, **limits, **given)
    words = ["--max-memory", "1GB", "--max-host-memory", "2GB", "--vision-tower", "tower", "--stats", "stats"]
    words += ["--first", "org/first", "--resume", "--no-page", "--p-max", "20"]
    ask(main, ["old", "new", "-o", "out", *WORDS, *words])
    assert asked[0].limits == Limits(10**9, 2 * 10**9)
    assert replace(asked[1], command="") == asked[0]
    assert asked[1].command


def test_so_it_does_of_a_sweep(asked: list[MergeRequest], tmp_path: Path) -> None:
    (settings := tmp_path / "settings.yaml").write_text("- {name: a}\n- {name: b, p-max: 20}\n")
    outs = {tmp_path / "outs" / "a": HPAConfig(), tmp_path / "outs" / "b": HPAConfig(p_max=20.0)}
    ask(sweep, "old", "new", outs, **CALIBRATION, overwrite=True, resume=True)
    words = ["-o", str(tmp_path / "outs"), *WORDS, "--overwrite", "--resume", "--page"]
    ask(main, ["sweep", "old", "new", str(settings), *words])
    assert asked[0].skip_complete
    assert replace(asked[1], command="", reads=()) == asked[0]
    assert asked[1].reads == (settings,)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task_calib": None}, "task_calib is missing: the method hpa looks at task samples, so give a file."),
        (
            {"method": "safe-delta", "compensation": False, "stats": Path("stats")},
            "no method here looks at task samples, and the statistics stats are of both sets: leave out the "
            "statistics.",
        ),
    ],
)
def test_a_request_that_cannot_be_met(options: dict[str, Any], sentence: str) -> None:
    config = HPAConfig(**{name: options.pop(name) for name in ("method", "compensation") if name in options})
    with pytest.raises(ConfigError) as raised:
        MergeRequest("old", "new", {Path("out"): config}, **CALIBRATION | options)
    assert str(raised.value) == sentence
