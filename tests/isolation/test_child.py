"""Children with limits: what they answer, how they are stopped, and that none is left."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import descendants

from hpa_merge.errors import CalibrationError
from hpa_merge.isolation import Child, Limits, Stopped, keeping, kept
from hpa_merge.isolation import child as child_module

pytestmark = pytest.mark.gate

SERVICE = "isolation_services:Probe"
LIMITS = Limits(computing=60.0, waiting=600.0)
PATIENCE = 120.0
"""Seconds after which a test gives up; nothing is held against it."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")


@pytest.fixture(name="child")
def child_of_the_test() -> Iterator[Child]:
    made = Child(SERVICE, 2**28)
    yield made
    made.close()


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


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_method_answers_with_a_value_and_bytes(child: Child) -> None:
    assert child.call("say", "one", limits=LIMITS) == (["one"], b"oneoneone")
    assert child.call("say", "two", limits=LIMITS) == (["one", "two"], b"twotwotwo")


def test_a_child_stands_where_its_parent_stands(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = Child(SERVICE, 2**28)
    assert there.call("where", limits=LIMITS)[0][2] == str(tmp_path)
    assert child.call("where", limits=LIMITS)[0][2] != str(tmp_path)
    there.close()


def test_children_know_nothing_of_each_other(child: Child) -> None:
    other = Child(SERVICE, 2**28)
    child.call("say", "one", limits=LIMITS)
    assert other.call("say", "two", limits=LIMITS)[0] == ["two"]
    other.close()


def test_what_is_large_goes_both_ways(child: Child) -> None:
    word = "x" * 10**7
    _, data = child.call("say", word, limits=LIMITS)
    assert len(data) == 3 * 10**7


def test_an_error_of_ours_comes_back_as_itself(child: Child) -> None:
    with pytest.raises(CalibrationError) as caught:
        child.call("sentence", limits=LIMITS)
    assert str(caught.value) == "s.jsonl:1: no."
    assert "in sentence" in str(caught.value.__cause__)  # where it happened, for -v
    assert child.call("say", "one", limits=LIMITS)[0] == ["one"]


def test_any_other_error_is_described(child: Child) -> None:
    with pytest.raises(RuntimeError, match=r"^LookupError: what\?$"):
        child.call("mistake", limits=LIMITS)
    with pytest.raises(RuntimeError, match="AttributeError"):
        child.call("nothing", limits=LIMITS)


def test_a_service_that_is_not_there() -> None:
    child = Child("isolation_services:Nothing", 2**28)
    with pytest.raises(RuntimeError, match="has no attribute 'Nothing'"):
        child.call("say", "one", limits=LIMITS)
    child.close()


def test_nothing_is_printed(child: Child, capfd: pytest.CaptureFixture[str]) -> None:
    child.call("write", limits=LIMITS)
    assert capfd.readouterr() == ("", "")


def test_an_interruption_is_the_parents_affair(child: Child) -> None:
    assert child.call("interrupt", limits=LIMITS)[0] == "still here"


def test_in_a_thread_that_ends() -> None:
    made: list[Child] = []
    thread = threading.Thread(target=lambda: made.append(Child(SERVICE, 2**28)))
    thread.start()
    thread.join()
    assert made[0].call("say", "one", limits=LIMITS)[0] == ["one"]
    made[0].close()


@pytest.mark.usefixtures("fresh_host")
def test_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", full)
    with kept(SERVICE):
        child = Child(SERVICE, 2**28)
        with pytest.raises(Stopped) as caught:
            child.call("say", "one", limits=LIMITS)
        assert str(caught.value) == "no process can be started for it: Resource temporarily unavailable"
        child.close()


# --- limits -----------------------------------------------------------------------------------------------------------

SOON = Limits(computing=0.2, waiting=600.0)


@pytest.mark.parametrize("method", ["compute", "compute_in_c"])
def test_what_computes_for_ever_is_stopped(method: str, child: Child) -> None:
    with pytest.raises(Stopped) as caught:
        child.call(method, limits=SOON)
    assert str(caught.value) == "it does not come to an end within 0.2 seconds of computing"
    with pytest.raises(Stopped, match="of computing"):  # there is no child any more
        child.call("say", "one", limits=LIMITS)


def test_every_call_has_the_whole_time(child: Child) -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError, match="LookupError"):
            child.call("mistake", limits=Limits(0.5, 600.0))
    assert child.call("say", "one", limits=Limits(0.5, 600.0))[0] == ["one"]


def test_what_waits_for_ever_is_stopped(child: Child) -> None:
    number = child.call("where", limits=LIMITS)[0][0]
    with pytest.raises(Stopped) as caught:
        child.call("wait", limits=Limits(60.0, 0.3))
    assert str(caught.value) == "it does not come to an end within 0.3 seconds"
    assert gone(number)


@linux
@pytest.mark.parametrize("method", ["allocate", "allocate_little_by_little", "allocate_as_a_cause"])
def test_what_takes_memory_without_bounds_is_stopped(method: str, child: Child) -> None:
    with pytest.raises(Stopped) as caught:
        child.call(method, limits=LIMITS)
    assert str(caught.value) == "it takes more than 0.25 GiB of memory"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("abort", "it takes more than 0.25 GiB of memory, or breaks a library (SIGABRT)"),
        ("crash", "it breaks a library (SIGSEGV)"),
        ("leave", "its process ended with status 3"),
        ("be_killed", "its process was killed, as the system does where memory is full"),
    ],
)
def test_a_process_that_ends_by_itself(method: str, reason: str, child: Child) -> None:
    with pytest.raises(Stopped) as caught:
        child.call(method, limits=LIMITS)
    assert str(caught.value) == reason


def test_a_result_without_bounds(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "ANSWER", 2**20)
    number = child.call("where", limits=LIMITS)[0][0]
    with pytest.raises(Stopped) as caught:
        child.call("say", "x" * 10**6, limits=LIMITS)
    assert str(caught.value) == "its result takes more than 0.000977 GiB"
    assert gone(number)


@linux
def test_a_parent_that_was_stopped_has_not_waited(child: Child) -> None:
    """Ctrl-Z, and fg an hour later: the time between is nobody's."""
    assert child.call("say", "one", limits=LIMITS)[0] == ["one"]
    child.begin("say", "two", limits=Limits(60.0, 0.6))
    stopper = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(2); os.kill({os.getpid()}, {int(signal.SIGCONT)})"]
    )
    os.kill(os.getpid(), signal.SIGSTOP)
    assert child.finish()[0] == ["one", "two"]
    stopper.wait()


# --- none is left -----------------------------------------------------------------------------------------------------


def test_closing_ends_the_child(child: Child) -> None:
    number = child.call("where", limits=LIMITS)[0][0]
    child.begin("compute", limits=LIMITS)
    child.close()
    assert gone(number)


def test_a_child_that_nobody_holds_ends() -> None:
    child = Child(SERVICE, 2**28)
    number = child.call("where", limits=LIMITS)[0][0]
    del child
    assert gone(number)


@pytest.mark.usefixtures("fresh_host")
def test_the_host_ends_with_its_last_user() -> None:
    with kept(SERVICE):
        first, second = Child(SERVICE, 2**28), Child(SERVICE, 2**28)
        numbers = [child.call("where", limits=LIMITS)[0] for child in (first, second)]
        assert numbers[0][1] == numbers[1][1]
        first.close()
    assert second.call("say", "one", limits=LIMITS)[0] == ["one"]
    second.close()
    assert gone(numbers[0][0], numbers[1][0], numbers[0][1])
    assert keeping._host is None


@pytest.mark.usefixtures("fresh_host")
def test_a_host_that_was_killed_is_replaced() -> None:
    with kept(SERVICE):
        child = Child(SERVICE, 2**28)
        number, host, _ = child.call("where", limits=LIMITS)[0]
        os.kill(host, signal.SIGKILL)
        with pytest.raises(Stopped, match=r"^its process was ended from outside$"):
            child.call("wait", limits=LIMITS)
        assert gone(number)
        other = Child(SERVICE, 2**28)
        assert other.call("say", "one", limits=LIMITS)[0] == ["one"]
        for one in (child, other):
            one.close()


PARENT = """
    import sys
    from hpa_merge.isolation import Child, Limits, kept
    with kept("isolation_services:Probe", beginning=%r):
        child = Child("isolation_services:Probe", 2**28)
        number, host, _ = child.call("where", limits=Limits(60.0, 600.0))[0]
        print(number, host, flush=True)
        child.call(%r, limits=Limits(1000.0, 1000.0))
"""


def started(beginning: bool, method: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with a child that does not come to an end, and the numbers of the child and its host."""
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "tests" / "helpers"), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT % (beginning, method))],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("beginning", [True, False])
@pytest.mark.parametrize("method", ["compute_in_c", "wait"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_its_parent(beginning: bool, method: str, number: signal.Signals) -> None:
    process, others = started(beginning, method)
    assert len(others) == 2
    assert all(_there(other) for other in others)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert gone(*others)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_host_that_imports_ends_with_its_parent() -> None:
    script = "from hpa_merge.isolation import kept\nwith kept('isolation_slow:Nothing'): print(flush=True); input()"
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "tests" / "helpers"), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    others = descendants(process.pid)
    assert len(others) == 1
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert gone(*others)


OPEN = """
    import os
    from hpa_merge.isolation import Child, Limits, kept
    reading, writing = os.pipe()
    with kept("isolation_services:Probe", beginning=True):
        child = Child("isolation_services:Probe", 2**28)
        count, _ = child.call("write_to", writing, limits=Limits(60.0, 600.0))
        os.close(writing)
        print(count, os.read(reading, 100))
"""


@linux
def test_a_forked_host_has_nothing_of_what_its_parent_has_open() -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "tests" / "helpers"), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OPEN)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "8 b''\n"  # written, to nobody; and the pipe is at its end, as nobody else holds it


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_host_that_is_killed_takes_its_children_with_it() -> None:
    process, (child, host) = started(True, "wait")
    os.kill(host, signal.SIGKILL)
    assert gone(child)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1  # Stopped, with its reason


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """Unlike the processes of multiprocessing, ours do not import the main module again."""
    script = tmp_path / "script.py"
    script.write_text("print('begins', flush=True)\n" + textwrap.dedent(PARENT % (False, "mistake")))
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "tests" / "helpers"), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.count("begins") == 1
    assert "RuntimeError: LookupError: what?" in done.stderr
