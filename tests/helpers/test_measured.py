"""measured.py: what a call took is its own, whatever ran in this process before."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from measured import measured


def test_memory_is_the_calls_own() -> None:
    before = measured(print).peak
    torch.zeros(2**28, dtype=torch.uint8)  # here, and given back
    assert measured(print).peak < before + 2**24
    assert measured(bytearray, 2**28).peak > 0.99 * 2**28  # pages that were there before may be used
    assert measured(print).peak < before + 2**24


def test_processor_time_is_the_calls_own_and_that_of_its_children() -> None:
    sum(range(10**7))
    assert measured(print).cpu_seconds < 1
    assert measured(sum, range(10**8)).cpu_seconds > 0.1
    assert measured(os.system, f"{sys.executable} -c 'sum(range(10**8))'").cpu_seconds > 0.1


def test_what_is_written_and_raised_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAID", "here")
    done = measured(os.system, 'echo "$SAID in $PWD"; echo no >&2')
    assert (done.status, done.output, done.errors) == (0, f"here in {tmp_path}\n", "no\n")
    assert measured(os.mkdir, "made").error is None
    assert measured(os.rmdir, "absent").error == ("FileNotFoundError", "[Errno 2] No such file or directory: 'absent'")
    assert (measured(sys.exit, 3).status, measured(sys.exit).status, measured(sys.exit, "words").status) == (3, 0, 1)
    assert measured(signal.raise_signal, signal.SIGKILL).status == -signal.SIGKILL
