"""The tiny pairs as cases, calls of the command on them, and how a refusal looks."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from measured import measured

from hpa_merge.render import folder


class TinyCase(NamedTuple):
    """A tiny pair with its calibration files."""

    name: str
    old: Path
    new: Path
    safety: Path
    task: Path

    def copied_to(self, folder: Path) -> "TinyCase":
        """A copy of the two checkpoints, to be damaged; the calibration files stay where they are."""
        for path in (self.old, self.new):
            shutil.copytree(path, folder / path.name)
        return self._replace(old=folder / "old", new=folder / "new")


REPORT = "hpa_report.json"
CARD = "README.md"
DRAW = folder.draw
"""The real one: a session begins by putting one in its place that draws nothing."""


def content(folder: Path) -> dict[str, Any]:
    """Every file of an OUT; the report parsed, without what differs from run to run."""
    files: dict[str, Any] = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files[REPORT] = {name: value for name, value in json.loads(files[REPORT]).items() if name not in ("run", "verdict")}
    return files


@dataclass
class Call:
    """A call of the command that would succeed, to be spoilt."""

    folder: Path
    old: Path
    new: Path
    safety: Path
    task: Path
    out: Path
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        files = ["--safety-calib", self.safety, "--task-calib", self.task, "-o", self.out]
        return [str(item) for item in (self.old, self.new, *files, *self.options)]

    def calibration(self, *lines: object) -> Path:
        """A file of these lines; an object is written as JSON."""
        path = self.folder / "lines.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path


def status(call: Call) -> int | str | None:
    """The exit status of the command, in this process; ``main`` returns where it is 0."""
    from hpa_merge.cli import main

    try:
        main(call.arguments)
    except SystemExit as end:
        return end.code
    return 0


def assert_refused(call: Call, capsys: pytest.CaptureFixture[str], complaint: str) -> None:
    """Status 2, one sentence, nothing written; in this process, so that what a test has changed in it counts."""
    there = sorted(call.folder.rglob("*"))
    assert status(call) == 2
    _check_refusal(capsys.readouterr().err, complaint)
    assert sorted(call.folder.rglob("*")) == there


REFUSAL_SECONDS = 20
"""Of a processor, that a refusal takes at most: half a one is usual, and a busy machine makes several of it."""

REFUSAL_BYTES = 2**28
"""That a refusal takes at most, beyond what the imports do."""


def assert_refused_cheaply(call: Call, complaint: str) -> None:
    """As :func:`assert_refused`, in a process of its own, within bounds of its processor time and memory."""
    from hpa_merge.cli import main

    there = sorted(call.folder.rglob("*"))
    done = measured(main, call.arguments)
    assert (done.status, done.error) == (2, None), done
    _check_refusal(done.errors, complaint)
    assert sorted(call.folder.rglob("*")) == there
    assert done.cpu_seconds < REFUSAL_SECONDS
    assert done.peak < REFUSAL_BYTES


def _check_refusal(printed: str, complaint: str) -> None:
    assert complaint in printed
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1
