"""The tutorial's commands, one after the other, print what the page says."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_uploads import UploadHub, serve, variables
from pages import ROOT, blocks

from hpa_merge.cli import main
from hpa_merge.demo import DemoFiles

TUTORIAL = ROOT / "docs" / "tutorial.md"

STATUS = 'echo "exit status $?"'

DONE = ("pip ", "hpa-merge demo ")
"""What is there already."""


def shape(printed: str) -> list[str]:
    """What is printed, without what may differ by machine: figures, intervals, the width of a table."""
    without = re.sub(r"\([\d.]+–[\d.]+\)", "", printed)
    without = re.sub(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]\d+)?", "#", without)
    without = re.sub(r"# [kMG]B\b", "# B", without)  # what the session took before this test is in the forecast
    lines = (" ".join(line.split()) for line in without.splitlines())
    return [line for line in lines if line and not set(line) <= {"─"}]


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    hub = UploadHub(owners={"your-name"})
    stop = serve(hub)
    yield hub
    stop()


def run(line: str, hub: UploadHub) -> tuple[int, str]:
    """A command as a shell takes it; ours in this process, for the sake of its imports, but for what asks the Hub."""
    if not line.startswith("hpa-merge ") or line.startswith("hpa-merge push "):
        environment = os.environ | variables(hub, Path("cache"))
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).replace(hub.address, "https://huggingface.co")
        return done.returncode, re.sub(r"/commit/[0-9a-f]{40}\b", "/commit/…", said)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(shlex.split(line.replace("\\\n", " "))[1:])
            status: Any = 0
        except SystemExit as end:
            status = end.code
    return status, printed.getvalue()


@pytest.mark.gate
@pytest.mark.usefixtures("program", "drawing")
def test_the_commands_print_what_the_page_says(
    demo: DemoFiles, hub: UploadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(demo.folder, tmp_path / "demo")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "92")  # the page's
    seen = status = 0
    for block in blocks(TUTORIAL):
        said = ""
        for line in block.commands:
            if line == STATUS:
                said, status = f"{said}exit status {status}\n", 0
            elif not line.startswith(DONE):
                assert status == 0, (line, said)
                status, printed = run(line, hub)
                said += printed
                seen += 1
        assert status == 0, (block.commands, said)
        if block.commands[0].startswith("python -c"):  # which weights come first may hang on the processor
            assert len(said.splitlines()) == len(block.printed.splitlines()), said
        else:
            assert shape(said) == shape(block.printed), block.commands
    assert seen >= 24
    assert {name for name, store in hub.repositories.items() if store.private} == {"your-name/march", "your-name/april"}
