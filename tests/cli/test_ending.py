"""Signals: a terminal that is closed ends a run as Ctrl-C does; a run that is stopped and continued goes on."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Call, content
from interruptions import beside

pytestmark = pytest.mark.gate

SCRIPT = """
import signal, sys, threading
import torch
import hpa_merge.engine.run
from hpa_merge.cli import main
torch.set_num_threads(1)
real, count = hpa_merge.engine.unit_merge.adapt, 0
def adapt(*arguments, **options):
    global count
    count += 1
    if count == 10:  # in the second block
        print("now", flush=True)
        sys.stdin.readline()
    return real(*arguments, **options)
hpa_merge.engine.unit_merge.adapt = adapt
main()
"""


def started(call: Call, *before: str) -> subprocess.Popen[str]:
    """The command, as it waits for a line in the second block."""
    words = [*before, sys.executable, "-c", SCRIPT, *call.arguments, "-q", "--no-page"]
    process = subprocess.Popen(words, stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    return process


@pytest.fixture
def call(make_call: Callable[..., Call]) -> Call:
    return make_call("llama")


def test_while_it_is_being_imported() -> None:
    """Nothing has begun: no traceback, and no sentence either."""
    words = [sys.executable, "-X", "importtime", "-m", "hpa_merge", "--help"]
    with subprocess.Popen(words, stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any(line.split()[-1] == "hpa_merge.printable" for line in said)
        process.send_signal(signal.SIGINT)
        left = process.communicate(timeout=120)
    assert (process.returncode, left[0]) == (-signal.SIGINT, "")
    assert "Traceback" not in left[1]


def test_a_terminal_that_is_closed(call: Call) -> None:
    with started(call) as process:
        process.send_signal(signal.SIGHUP)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert said.strip() == "Error: interrupted: the same command with --resume continues."
    assert beside(call.out) == ["out.partial", "out.partial.journal"]


def test_nobody_is_left_to_be_told(call: Call) -> None:
    """What the terminal has taken with it cannot be written to."""
    with started(call) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=120) == 130
    assert beside(call.out) == ["out.partial", "out.partial.journal"]


def test_under_nohup_it_goes_on(call: Call) -> None:
    with started(call, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=120)
    assert process.returncode == 0
    assert beside(call.out) == ["out"]


def test_stopped_and_continued(call: Call) -> None:
    with started(call) as process:
        process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{process.pid}/status")
        while status.exists() and "State:\tT" not in status.read_text():
            pass
        process.send_signal(signal.SIGCONT)
        process.communicate("\n", timeout=120)
    assert process.returncode == 0
    first = content(call.out)
    call.out.rename(call.folder / "first")
    with started(call) as process:
        process.communicate("\n", timeout=120)
    assert content(call.out) == first
