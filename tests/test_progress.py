"""Progress: the estimate, the bar on a terminal, the lines elsewhere, and the bars of a notebook."""

import io
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from hpa_merge.cli import terminal
from hpa_merge.progress import Bar, Lines, Pace, bars_in_notebooks, duration, silent


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "5 s"), (12, "10 s"), (57, "55 s"), (60, "1 min"), (250, "4 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_an_estimate_is_as_exact_as_it_is(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_is_estimated_from_the_steps_and_never_zero() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.step("opening OLD", 0, 1)
    assert (pace.known, pace.left) == (False, "")
    clock.now += 50  # what came before the steps does not count
    left = []
    for done in range(9):
        pace.step(f"unit {done}", done, 9)
        left.append(pace.left)
        clock.now += 10
    assert left == [
        "",
        "",
        *(f"about {text} left" for text in ("1 min", "1 min", "50 s", "40 s", "30 s", "20 s", "10 s")),
    ]
    clock.now += 100
    assert pace.left == ""  # the last step takes longer than was thought
    pace.step("done", 9, 9)
    assert pace.ended
    pace.step("evaluating", 0, 5)  # another phase
    assert (pace.ended, pace.left) == (False, "")


def drawn(bar: Bar, file: io.StringIO) -> str:
    """What is on the line now."""
    return file.getvalue().rstrip("\r").rpartition("\r")[2].rstrip()


@pytest.mark.parametrize("columns", [80, 120, 40])
def test_a_bar_fits_and_is_erased(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    clock, file = Clock(), io.StringIO()
    bar = Bar("merging", pace=Pace(clock), file=file)
    assert file.getvalue() == ""
    bar("opening OLD", 0, 1)
    assert drawn(bar, file).startswith("merging 00:00, opening OLD")
    bar("encoding the safety samples, 5 of 8", 0, 1)
    assert ("encoding the safety samples" in drawn(bar, file)) == (columns >= 80)  # no bar yet: there is room
    name = "model.vision_tower.vision_model.encoder.layers."
    for done in range(4):
        bar(f"{name}{done}\x1b[2J", done, 9)
        clock.now += 30
    lines = [line for line in file.getvalue().split("\r") if line.strip()]
    assert all(len(line) < columns for line in lines)
    if columns >= 80:
        assert "layers.3" in lines[-1]
        assert "33%" in lines[-1]
        assert "about 3 min left" in lines[-1]
    assert "\x1b[2J" not in file.getvalue()
    bar("done", 9, 9)
    assert drawn(bar, file) == ""
    bar.close()
    assert [thread for thread in threading.enumerate() if thread.name == "progress"] == []


def test_a_bar_has_one_clock_for_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clock, file = Clock(), io.StringIO()
    monkeypatch.setattr("tqdm.std.time", clock)
    bar = Bar("demo", pace=Pace(clock), file=file)
    bar("training OLD", 1, 2)
    clock.now += 65
    bar("training OLD", 2, 2)
    assert drawn(bar, file) == ""
    bar("tuning NEW", 1, 3)
    assert "| 01:05, tuning NEW" in drawn(bar, file)
    bar.close()


def test_lines_come_now_and_then_and_hold_no_control_character() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines("merging", said.append, pace=Pace(clock), ticking=False)
    clock.now += 1000  # the clock starts with the first step
    for number in range(100):
        lines("reading\x1b[1m" if number < 3 else f"unit {number}", max(number - 3, 0), 1 if number < 3 else 97)
        clock.now += 2
    assert len(said) < 30
    assert said[0] == "00:06 merging 0 of 97: unit 3"
    assert said[1] == "00:12 merging 3 of 97: unit 6, about 3 min left"
    assert all(line.isprintable() for line in said)
    before = len(said)
    lines("done", 97, 97)
    lines.close()
    clock.now += 1000
    lines("more", 1, 97)
    assert len(said) == before


@pytest.mark.parametrize(
    ("tty", "term", "kind"), [(True, "xterm", Bar), (True, "dumb", Lines), (False, "xterm", Lines)]
)
def test_where_there_is_no_terminal_there_are_lines(
    tty: bool, term: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: tty, write=lambda text: None, flush=lambda: None))
    with terminal.progress_bar(quiet=False) as shown:
        assert isinstance(shown, kind)
    with terminal.progress_bar(quiet=True) as shown:
        assert shown is silent
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with terminal.progress_bar(quiet=False) as shown:
        assert shown is silent


def test_a_notebook_has_bars_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @bars_in_notebooks(on_progress="working", on_answer="asking")
    def work(on_progress: Any = silent, on_answer: Any = silent) -> None:
        on_progress("the first step", 0, 3)
        on_progress("the second step", 1, 3)

    monkeypatch.delenv("TQDM_DISABLE")
    work()
    assert capsys.readouterr().err == ""  # not in a notebook
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    work()
    assert "working" in (said := capsys.readouterr().err)
    assert "second step" in said
    assert "asking" not in said
    work(on_progress=silent)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    work()
    assert capsys.readouterr().err == ""
