"""A command that is ended while its child computes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Call
from processes import descendants
from tiny_chats import NESTED

pytestmark = pytest.mark.gate

PATIENCE = 120.0
"""Seconds after which a test gives up; nothing is held against it."""


def gone(*numbers: int) -> bool:
    """Whether the processes end; a zombie has ended."""
    until = time.monotonic() + PATIENCE
    while any(_there(number) for number in numbers):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _there(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


# --- the command ------------------------------------------------------------------------------------------------------


def computing(numbers: list[int]) -> bool:
    """Whether one of the processes has computed for a second: it is in the template, which does nothing else."""
    for number in numbers:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            if int(fields[11]) / os.sysconf("SC_CLK_TCK") > 1:
                return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_while_it_encodes(
    number: signal.Signals, make_call: Callable[..., Call], program: Path
) -> None:
    call = make_call()
    for folder in (call.old, call.new):
        (folder / "chat_template.jinja").write_text(NESTED + "{{ ns.a == ns.b }}")
    process = subprocess.Popen([program, *call.arguments], stderr=subprocess.PIPE, text=True)
    for _ in range(int(PATIENCE / 0.05)):
        if computing(others := descendants(process.pid)):
            break
        assert process.poll() is None
        time.sleep(0.05)
    else:
        pytest.fail("no child computes")
    process.send_signal(number)
    _, printed = process.communicate(timeout=PATIENCE)
    assert gone(*others)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert printed.strip() == "Error: interrupted: the same command with --resume continues."
    assert not call.out.exists()
