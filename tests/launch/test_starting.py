"""launch/starting.py and cli/ranks.py: how many processes, how they end, and who tells."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest
from cases import Call, content
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from hpa_merge.cli import main
from hpa_merge.errors import ConfigError
from hpa_merge.launch.environment import Place, timeout_in
from hpa_merge.launch.starting import Ended, _of, check_count

WORKERS = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def status(*words: str) -> int | str | None:
    """The exit status of the command, in this process."""
    try:
        main(words)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize(
    ("count", "device", "cuda_devices", "sentence"),
    [
        (9, "auto", 8, "--nproc is 9 and this machine has 8 CUDA devices"),
        (1, "cuda", 0, "--nproc is 1 and this machine has 0 CUDA devices"),
        (2, "cuda:1", 8, "--nproc 2 gives each process a GPU of its own, and device is cuda:1: give cuda."),
        (10**6, "cpu", 8, "--nproc is 1000000 and has to be at most"),
        (8, "auto", 8, ""),
        (4, "auto", 0, ""),
        (16, "cpu", 1, ""),
    ],
)
def test_how_many(count: int, device: str, cuda_devices: int, sentence: str) -> None:
    if not sentence:
        check_count(count, device, cuda_devices)
        return
    with pytest.raises(ConfigError) as raised:
        check_count(count, device, cuda_devices)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: 2, 1: 2}, Ended(2)),
        ({1: 3}, Ended(3)),
        ({0: 1, 1: -9}, Ended(None, killed=1, by="SIGKILL")),  # the others only tell that it is gone
        ({0: -15, 1: 2}, Ended(2)),  # the launcher has ended one
        ({0: -15, 2: -11}, Ended(None, killed=2, by="SIGSEGV")),
        ({0: -15}, Ended(None, killed=0, by="SIGTERM")),
    ],
)
def test_how_they_ended(codes: dict[int, int], expected: Ended) -> None:
    failures = {rank: ProcessFailure(rank, 1, code, "") for rank, code in codes.items()}
    assert _of(ChildFailedError("hpa-merge", failures)) == expected


@pytest.mark.parametrize(
    ("words", "environment", "code", "sentence"),
    [
        (["--nproc", "0"], {}, 2, "Invalid value for '--nproc'"),
        (["--nproc", "2", "--device", "cuda:0"], {}, 2, "--nproc 2 gives each process a GPU of its own"),
        (["--nproc", "2"], {"RANK": "0", "WORLD_SIZE": "x"}, 2, "WORLD_SIZE is 'x' in the environment"),
    ],
)
def test_refused_before_a_process_is_started(
    words: list[str],
    environment: dict[str, str],
    code: int,
    sentence: str,
    make_call: Callable[..., Call],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert status(*make_call("llama").arguments, *words) == code
    assert sentence in capsys.readouterr().err


def test_commands_for_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rank 0 runs them; the others end at once, without a word."""
    for name, value in WORKERS.items():
        monkeypatch.setenv(name, value)
    assert status("inspect", "nowhere") == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert status("inspect", "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    for words, sentence in (("swep", "did you mean hpa-merge sweep?"), ("inspect", "RANK is set in the environment")):
        assert status(words, "nowhere") == 2
        assert sentence in capsys.readouterr().err


def test_what_is_told_before_the_processes_meet(
    make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interruption, by rank 0 or by the process of --nproc; a wrong environment, by one process of a machine."""

    def interrupted(_: Place) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpa_merge.launch.meeting.meeting", interrupted)
    for name, value in WORKERS.items():
        monkeypatch.setenv(name, value)
    words = make_call("llama").arguments
    for rank, told in (("1", ""), ("0", "Error: interrupted: the same command with --resume continues.\n")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert status(*words) == 130
        assert capsys.readouterr() == ("", told)
        with monkeypatch.context() as patch:
            patch.setattr("hpa_merge.launch.meeting.meeting", lambda _: timeout_in({"HPA_MERGE_TIMEOUT": "soon"}))
            assert status(*words) == 2
        assert capsys.readouterr().err.count("HPA_MERGE_TIMEOUT is 'soon'") == bool(told)
    monkeypatch.setattr("hpa_merge.cli.main", lambda: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, then in ((signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)):
            signal.signal(signal.SIGINT, handler)
            runpy.run_module("hpa_merge")
            assert signal.getsignal(signal.SIGINT) == then
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.gate
def test_two_processes(make_call: Callable[..., Call]) -> None:
    """A refusal is told once, with its exit status; then OUT is that of one process."""
    call = make_call("llama")
    command = [sys.executable, "-m", "hpa_merge", *call.arguments, "--nproc", "2", "--no-page"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    refused = subprocess.run([*command, "--max-memory", "1MB"], capture_output=True, text=True, env=environment)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: max_memory is 0.00 GB and this merge may take ")
    assert refused.stderr.count("\n") == 1
    assert list(call.folder.glob("out*")) == []
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("every figure in hpa_report.json") == 1
    first = content(call.out)
    call.out.rename(call.folder / "first")
    assert status(*call.arguments, "--no-page", "-q") == 0
    assert content(call.out) == first
