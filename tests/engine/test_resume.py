"""``merge(..., resume=True)``: the same bytes as without an interruption, nothing done twice, nothing mixed up."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CARD, REPORT, TinyCase, content
from interruptions import STOPS, beside, interrupt, raising, run

import hpa_merge.engine.run
import hpa_merge.methods.applying
from hpa_merge.errors import OutputError
from hpa_merge.model import PausedForwards

pytestmark = pytest.mark.gate

VERSION = hpa_merge.__version__
Tiny = Callable[..., TinyCase]


LEFTOVER = ["out.partial", "out.partial.journal"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often weights were measured and forwards started."""
    counts = {"measured": 0, "started": 0}
    measure, start = hpa_merge.methods.applying.measure_update, PausedForwards.start

    def measure_update(*arguments: Any) -> Any:
        counts["measured"] += 1
        return measure(*arguments)

    def started(self: PausedForwards, *arguments: Any, **others: Any) -> None:
        counts["started"] += 1
        start(self, *arguments, **others)

    monkeypatch.setattr(hpa_merge.methods.applying, "measure_update", measure_update)
    monkeypatch.setattr(PausedForwards, "start", started)
    return counts


# --- the same bytes, and nothing twice ---


@pytest.mark.parametrize(
    ("name", "in_text", "units"),
    [
        ("llama", (), 5),
        ("gpt2", (), 3),
        pytest.param("llava", (), 8, marks=pytest.mark.gate),
        ("llava", ("safety",), 8),
        pytest.param("llava", ("safety", "task"), 8, marks=pytest.mark.gate),
    ],
    ids=["llama", "gpt2", "llava", "llava, safety in text", "llava, all in text"],
)
def test_interrupted_after_every_unit(
    name: str, in_text: tuple[str, ...], units: int, tiny: Tiny, tmp_path: Path, calls: dict[str, int]
) -> None:
    """Where only one set is in text no linear of the vision tower is calibrated; where both are none is visited."""
    case = tiny(name)
    for purpose in in_text:
        (tmp_path / purpose).write_text('{"text": "no. that would hurt people."}\n{"text": "1+2=3"}\n')
        case = case._replace(**{purpose: tmp_path / purpose})
    report = run(case, tmp_path / "whole", uncalibrated="old")
    whole = content(tmp_path / "whole")
    of_unit: dict[str, int] = {}  # in the order of the merge
    for record in report.linears:
        of_unit[record.unit] = of_unit.get(record.unit, 0) + (record.outcome == "adapted")
    assert len(of_unit) == units
    assert calls == {"measured": sum(of_unit.values()), "started": 2}
    for done in range(1, units + 1):
        out = tmp_path / str(done) / "out"
        out.parent.mkdir()
        interrupt(case, out, done, STOPS[done % len(STOPS)], uncalibrated="old")
        assert beside(out) == LEFTOVER
        calls |= {"measured": 0, "started": 0}
        run(case, out, resume=True, uncalibrated="old")
        assert beside(out) == ["out"]
        assert content(out) == whole, done
        left = [count for place, count in enumerate(of_unit.values()) if place >= done]
        assert calls == {"measured": sum(left), "started": 2 if left else 0}, done


def test_interrupted_at_every_step(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    steps: list[str] = []
    run(case, tmp_path / "whole", on_progress=lambda what, done, total: steps.append(what))
    whole = content(tmp_path / "whole")
    assert steps[-1] == "done"  # by then OUT is there
    for number, step in enumerate(steps[steps.index("planning") : -1]):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        error = STOPS[number % len(STOPS)]

        def on_progress(what: str, done: int, total: int, step: str = step, error: BaseException = error) -> None:
            if what == step:
                raise error

        with pytest.raises(type(error)):
            run(case, out, on_progress=on_progress)
        assert beside(out) in ([], LEFTOVER)
        run(case, out, resume=True)
        assert content(out) == whole, step


def test_interrupted_within_a_unit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: dict[str, int]
) -> None:
    """What is written of a unit that is not finished is done again; interrupted time and again it ends all the same."""
    case, out, real = tiny("llama"), tmp_path / "out", hpa_merge.engine.unit_merge.adapt
    run(case, tmp_path / "whole")
    total, calls["measured"] = calls["measured"], 0
    for stop in (10, 2, 9, 14):  # 7 linears a block, 6 in the second: within the 2nd block, the 2nd, the 3rd, the last
        left = [stop]

        def adapt(*arguments: Any, left: list[int] = left, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", adapt)
        with pytest.raises(KeyboardInterrupt):
            run(case, out, resume=True)
    monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", real)
    run(case, out, resume=True)
    assert content(out) == content(tmp_path / "whole")
    assert total < calls["measured"] <= total + 4 * 7


def test_nothing_finished_leaves_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(KeyboardInterrupt()))
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            run(tiny("llama"), tmp_path / "out", resume=resume)
        assert beside(tmp_path / "out") == []


def test_nothing_to_resume_just_runs(tiny: Tiny, tmp_path: Path) -> None:
    run(tiny("gpt2"), tmp_path / "a", resume=True)
    run(tiny("gpt2"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert beside(tmp_path / "a") == ["a"]


def test_what_new_lost_meanwhile_is_not_in_out(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed to publish has NEW's side files of that day in OUT.partial."""
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    (case.new / "notes.txt").write_text("of the first day")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", raising(PermissionError(13, "Permission denied")))
        with pytest.raises(OutputError, match="cannot be renamed"):
            run(case, out)
    (case.new / "notes.txt").unlink()
    run(case, out, resume=True)
    assert sorted(content(out)) == sorted([*(path.name for path in case.new.iterdir()), REPORT, CARD])


# --- refusals ---


def refused(case: TinyCase, out: Path, **options: Any) -> str:
    before = {path: path.read_bytes() for path in out.parent.glob("out.*/*")}
    with pytest.raises(OutputError) as caught:
        run(case, out, **options)
    assert {path: path.read_bytes() for path in out.parent.glob("out.*/*")} == before
    assert beside(out) == LEFTOVER
    return str(caught.value)


def test_a_leftover_is_named_with_both_ways_on(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt(case, out)
    assert refused(case, out) == (
        f"{out}.partial is there from a run that was interrupted: resume it with --resume, or delete it."
    )
    shutil.rmtree(f"{out}.partial")  # the journal stays, and says nothing of what comes now
    run(case, out, p_max=20.0)
    run(case, tmp_path / "other", p_max=20.0)
    assert content(out) == content(tmp_path / "other")
    assert beside(out) == ["out"]


def test_resumed_with_something_else(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, out = tiny("llama").copied_to(tmp_path), tmp_path / "out"
    run(case, tmp_path / "whole")
    interrupt(case, out)
    remedy = "resume with the same, or delete the folder."
    assert refused(case, out, resume=True, p_max=20.0) == (
        f"{out}.partial was begun with p_max 15.0, and now it is 20.0: {remedy}"
    )
    assert "was begun with exclude [], and now it is ['q_proj']" in refused(case, out, resume=True, exclude=("q_proj",))
    with monkeypatch.context() as patch:
        patch.setattr("hpa_merge.__version__", "9.9.9")
        assert refused(case, out, resume=True) == (
            f"{out}.partial was begun with version of hpa-merge {VERSION}, and now it is 9.9.9: {remedy}"
        )
    other = tmp_path / "task.jsonl"
    other.write_text(case.task.read_text().replace("0", "1"))
    assert "was begun with task samples " in refused(case._replace(task=other), out, resume=True)
    shard = next(case.old.glob("*.safetensors"))
    times = shard.stat()
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert "was begun with OLD " in refused(case, out, resume=True)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 3)
        assert "was begun with threads 1, and now it is 3" in refused(case, out, resume=True)
    moved = tmp_path / "renamed.jsonl"  # another name of the same samples is no other run
    moved.write_bytes(case.task.read_bytes())
    run(case._replace(task=moved), out, resume=True)
    expected = content(tmp_path / "whole")
    expected[REPORT]["task"]["file"] = str(moved)
    expected[CARD] = expected[CARD].replace(b"task.jsonl", b"renamed.jsonl")
    assert content(out) == expected
