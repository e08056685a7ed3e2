"""What a kill leaves, at any moment: OUT whole, or nothing under its name, and a way on."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import Call, TinyCase, content, status
from interruptions import beside, interrupt, run

from hpa_merge.checkpoint.journal import Journal, is_locked
from hpa_merge.errors import OutputError

pytestmark = pytest.mark.gate

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "crash.py"
Tiny = Callable[..., TinyCase]


# --- real signals ---


def test_killed_and_interrupted_at_random_moments(tmp_path: Path) -> None:
    """A few runs of the benchmark, which does hundreds: SIGKILL, also twice, SIGINT, SIGTERM, SIGHUP."""
    counts = ["--runs", "2", "--interrupts", "3", "--commands", "1"]
    words = [*counts, "--seed", str(time.time_ns()), "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, BENCHMARK, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "incomplete OUT seen: 0; failures: 0" in done.stdout
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
import torch
import hpa_merge.engine.run
from hpa_merge.cli import main
torch.set_num_threads(1)
real, count = hpa_merge.engine.unit_merge.adapt, 0
def adapt(*arguments, **options):
    global count
    count += 1
    if count == 10:  # in the second block; a factorisation takes that long
        print("now", flush=True)
        CALL
    return real(*arguments, **options)
hpa_merge.engine.unit_merge.adapt = adapt
main()
"""


@pytest.mark.parametrize(
    ("number", "slow"),
    [(signal.SIGINT, "time.sleep(900)"), (signal.SIGTERM, "torch.linalg.eigvalsh(torch.rand(9000, 9000))")],
    ids=["in Python", "in a library"],
)
def test_a_signal_ends_the_run_soon(slow: str, number: int, make_call: Callable[..., Call]) -> None:
    """Not when the call is through, which would take a quarter of an hour or more than a minute of a processor."""
    call = make_call("llama")
    call.options = ("-q",)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-c", SLOW.replace("CALL", slow), *call.arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(0.5)  # it is deep in the call
        process.send_signal(number)
        said = process.communicate(timeout=600)[1]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 130
    assert said.strip() == ("Error: interrupted: the same command with --resume continues.")
    assert beside(call.out) == ["out.partial", "out.partial.journal"]
    assert len(Path(f"{call.out}.partial.journal").read_bytes().splitlines()) == 2
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 30  # of which the imports take 5


def test_interrupted_when_out_is_there(
    make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpa_merge.cli.tables.merging.merge_summary", fail)
    call = make_call("gpt2")
    assert status(call) == 130
    assert beside(call.out) == ["out"]
    assert "nothing was published" not in capsys.readouterr().err


# --- what a kill may leave of the journal and the folder ---


def test_a_torn_last_line(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, tmp_path / "whole")
    interrupt(case, out)
    path, kept = Path(f"{out}.partial.journal"), tmp_path / "kept"
    shutil.copytree(f"{out}.partial", kept)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    begun, last = b"".join(lines[:-1]), lines[-1]
    for tail in [*(last[:end] for end in range(len(last))), last[:40] + bytes(64), last[:40] + b"\xff\n\x80\n"]:
        path.write_bytes(begun + tail)
        opened = Journal(path)
        opened.close()
        assert opened.lines == [json.loads(line) for line in lines[:-1]], tail
        assert path.read_bytes() == begun, tail
    for end in (0, 1, len(last) // 2, len(last) - 1):
        path.write_bytes(begun + last[:end])
        run(case, out, resume=True)
        assert content(out) == content(tmp_path / "whole"), end
        shutil.rmtree(out)
        shutil.copytree(kept, f"{out}.partial")


@pytest.mark.parametrize("damage", ["no journal", "an empty one", "its first line torn", "a shard gone", "one cut off"])
def test_what_cannot_be_resumed_starts_anew(damage: str, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, tmp_path / "whole")
    interrupt(case, out)
    journal, shard = Path(f"{out}.partial.journal"), next(Path(f"{out}.partial").glob("*.safetensors"))
    if damage == "no journal":
        journal.unlink()
    elif damage == "an empty one":
        os.truncate(journal, 0)
    elif damage == "its first line torn":
        os.truncate(journal, 100)
    elif damage == "a shard gone":
        shard.unlink()
    else:
        os.truncate(shard, shard.stat().st_size - 1)
    run(case, out, resume=True)
    assert content(out) == content(tmp_path / "whole")
    assert beside(out) == ["out"]


# --- one run at a time ---


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("laid_out", [False, True])
def test_a_second_run_is_refused(laid_out: bool, resume: bool, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    if laid_out:
        interrupt(case, out)
    first = Journal(Path(f"{out}.partial.journal"))
    left = {path: path.read_bytes() for path in tmp_path.glob("out*/*")}
    with pytest.raises(OutputError) as caught:
        run(case, out, resume=resume)
    assert str(caught.value) == f"another run is writing {out}.partial: wait for it, or choose another OUT."
    assert {path: path.read_bytes() for path in tmp_path.glob("out*/*")} == left
    first.close()
    run(case, out, resume=True)
    assert beside(out) == ["out"]


def test_the_first_run_ends_while_the_second_opens_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the second holds the lock of a file that is gone, and a third gets another one for the same OUT."""
    path = tmp_path / "out.partial.journal"
    first, real = Journal(path), os.open

    def opened(*arguments: Any, **options: Any) -> int:
        monkeypatch.setattr(os, "open", real)
        descriptor = real(*arguments, **options)
        first.end()
        path.touch()  # as the third does
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    second = Journal(path)
    assert is_locked(path)
    second.close()


# --- killed while OUT is replaced ---


class Killed(BaseException):
    """Ends the run at once: what is done on the way out fails too."""


def run_to_its_rename(number: int, case: TinyCase, out: Path, **options: Any) -> None:
    """A merge that is killed when it renames for this time, counted from 1."""
    real, count = Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] >= number:
            raise Killed
        return real(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Killed):
            run(case, out, overwrite=True, **options)


def test_killed_between_the_two_renames(tiny: Tiny, tmp_path: Path) -> None:
    case, out, replaced = tiny("gpt2"), tmp_path / "out", tmp_path / "out.replaced"
    run(case, tmp_path / "whole")
    run(case, out, p_max=20.0)
    old = content(out)
    run_to_its_rename(1, case, out)
    assert content(out) == old
    run_to_its_rename(2, case, out, resume=True)
    assert not out.exists()
    assert content(replaced) == old
    with pytest.raises(OutputError, match=re.escape(f"{out}.partial is there from a run that was interrupted")):
        run(case, out, overwrite=True)
    assert content(replaced) == old
    run_to_its_rename(2, case, out, resume=True)  # the first puts the old one back
    assert content(out) == old
    with pytest.raises(OutputError, match="exists already"):
        run(case, out, resume=True)
    assert content(out) == old
    run_to_its_rename(2, case, out, resume=True)
    with pytest.raises(OutputError, match="exists already"):
        run(case, out, resume=True)  # not to be replaced: it is put back
    assert content(out) == old
    run(case, out, resume=True, overwrite=True)
    assert content(out) == content(tmp_path / "whole")
    assert beside(out) == ["out"]
