"""Work that is finished is published or kept: whatever fails beside the weights, and whoever has made OUT meanwhile."""

import dataclasses
import errno
import json
import math
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import CARD, REPORT, TinyCase, content
from interruptions import beside, raising, run

from hpa_merge import MergeReport
from hpa_merge.checkpoint import check_output
from hpa_merge.errors import OutputError
from hpa_merge.evaluation import tuning
from hpa_merge.evaluation.tuning import Tuning, workplace
from hpa_merge.render import folder

Tiny = Callable[..., TinyCase]


class Panic(BaseException):
    """What a library in another language raises when it gives up: no Exception."""


# --- the page, the card and the report ---


@pytest.mark.parametrize("error", [Panic("no memory"), MemoryError(), ValueError("\x1b in a name"), OSError(5, "EIO")])
def test_drawing_never_withholds_a_merge(
    error: BaseException, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpa_merge.render.folder.draw", raising(error))
    report = run(tiny("gpt2"), tmp_path / "out")
    assert any("hpa_report.html and its pictures were not drawn" in note for note in report.run.notes)
    assert beside(tmp_path / "out") == ["out"]


def test_an_interruption_while_it_is_drawn_is_one(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("hpa_merge.render.folder.draw", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(tiny("gpt2"), tmp_path / "out")
    assert beside(tmp_path / "out") == ["out.partial", "out.partial.journal"]
    run(tiny("gpt2"), tmp_path / "out", resume=True)


def test_a_card_that_cannot_be_made(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.render.folder.make", raising(RecursionError("deep")))
    report = run(tiny("gpt2"), tmp_path / "out")
    assert any(f"{CARD} was not made (RecursionError: deep)" in note for note in report.run.notes)
    assert not (tmp_path / "out" / CARD).exists()


@pytest.mark.parametrize(
    ("value", "written"), [(math.nan, None), (math.inf, None), ({1, 2}, "{1, 2}")], ids=["nan", "inf", "a set"]
)
def test_a_report_with_what_json_has_not(
    value: object, written: object, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder.files_of

    def files_of(report: MergeReport, *arguments: Any, **options: Any) -> Any:
        return real(dataclasses.replace(report, config={**report.config, "forged": value}), *arguments, **options)

    monkeypatch.setattr("hpa_merge.render.folder.files_of", files_of)
    report = run(tiny("gpt2"), tmp_path / "out")
    found = json.loads((tmp_path / "out" / REPORT).read_bytes())
    assert found["config"]["forged"] == written
    assert any("are null" in note for note in report.run.notes)


def test_half_of_a_surrogate_pair_does_not_make_the_report_unreadable(tiny: Tiny, tmp_path: Path) -> None:
    report = run(tiny("gpt2"), tmp_path / "out")
    report = dataclasses.replace(report, run=dataclasses.replace(report.run, command="hpa-merge \udcff"))
    assert json.loads(folder.files_of(report)[1][REPORT])["run"]["command"] == "hpa-merge ?"


# --- OUT ---


def test_out_appears_during_the_run(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "drawing the page":
            out.mkdir()
            (out / "thesis.tex").write_text("work")

    with pytest.raises(OutputError) as caught:
        run(case, out, on_progress=on_progress)
    assert str(caught.value) == (
        f"OUT {out} exists already, and did not when this run began: the finished work is kept in {out}.partial, "
        "so move OUT away and run the same command with --resume."
    )
    assert (out / "thesis.tex").read_text() == "work"
    out.rename(tmp_path / "moved")
    run(case, out, resume=True)
    assert beside(out) == ["out"]


@pytest.fixture
def tuned(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuning]:
    """``tuned(out)``: a tuning whose models are not asked, and whose first setting is chosen."""
    from hpa_merge import HPAConfig
    from hpa_merge.engine.request import MergeRequest
    from hpa_merge.evaluation.collecting import Suite
    from hpa_merge.evaluation.confirming import Parts
    from hpa_merge.evaluation.running import Answering
    from hpa_merge.report.evaluation import Bounds, ModelResult

    def go(out: Path, meanwhile: Callable[[], object] = lambda: None, **options: Any) -> Tuning:
        def evaluate(models: list[str], *_: object, **__: object) -> list[object]:
            meanwhile()
            return [ModelResult(Path(model).name, model, {}, {}, {}, {}) for model in models]

        monkeypatch.setattr(tuning, "evaluate", evaluate)
        monkeypatch.setattr(tuning, "choose", lambda settings, goal: min(settings))
        case = tiny("gpt2")
        outs = {workplace(out) / name: HPAConfig(p_max=p) for name, p in (("a", 15.0), ("b", 20.0))}
        job = MergeRequest(
            case.old, case.new, outs, case.safety, (case.task,), skip_complete=True, page=False, **options
        )
        return tuning.tune(job, out, Parts(Suite()), None, Bounds(max_asr=10.0), Answering())  # type: ignore[arg-type]

    return go


@pytest.mark.parametrize("kind", ["folder", "checkpoint", "file"])
def test_out_appears_during_a_tuning(kind: str, tuned: Callable[..., Tuning], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def meanwhile() -> None:
        if kind == "file":
            out.write_text("work")
        else:
            out.mkdir()
            for name in ("thesis.tex",) if kind == "folder" else ("config.json", "model.safetensors"):
                (out / name).write_text("work")

    with pytest.raises(OutputError, match="exists already, and did not when this run began: the finished work is"):
        tuned(out, meanwhile)
    assert all(path.read_text() == "work" for path in ([out] if kind == "file" else out.iterdir()))
    assert (workplace(out) / "a" / REPORT).exists()
    out.rename(tmp_path / "moved")
    tuned(out, resume=True)
    assert beside(out) == ["out"]


def test_a_tuning_replaces_what_may_be_replaced_only(tuned: Callable[..., Tuning], tmp_path: Path) -> None:
    out = tmp_path / "out"
    tuned(out)
    before = content(out)

    def meanwhile() -> None:
        (out / "answers.jsonl").write_text("work")

    with pytest.raises(OutputError, match=r"holds answers\.jsonl, which does not belong to a checkpoint"):
        tuned(out, meanwhile, overwrite=True)
    assert content(out) == before | {"answers.jsonl": b"work"}
    (out / "answers.jsonl").unlink()
    tuned(out, overwrite=True, resume=True)
    assert beside(out) == ["out"]


def test_a_place_that_cannot_be_renamed_to(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of a container's image, or a mount point: the work is kept."""
    case, out, real = tiny("gpt2"), tmp_path / "out", Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "out.partial":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(OutputError, match=r"\(Invalid cross-device link\): it is a mount point or part of"):
            run(case, out)
    assert beside(out) == ["out.partial", "out.partial.journal"]
    run(case, out, resume=True)
    assert beside(out) == ["out"]


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_permissions_follow_the_umask(mask: int, tiny: Tiny, tmp_path: Path) -> None:
    """Files and folders as any program makes them; the journal is nobody else's business."""
    modes: list[int] = []

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "drawing the page":
            modes.append(stat.S_IMODE((tmp_path / "out.partial.journal").stat().st_mode))

    before = os.umask(mask)
    try:
        run(tiny("gpt2"), tmp_path / "out", on_progress=on_progress)
    finally:
        os.umask(before)
    assert modes == [0o600 & ~mask]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o666 & ~mask}


def test_a_disk_of_its_own_under_out(tiny: Tiny, tmp_path: Path) -> None:
    """OUT's parent may be a mount point; OUT itself may not."""
    (disk := tmp_path / "disk").mkdir()
    words = ["mount", "-t", "tmpfs", "tmpfs", str(disk)]
    try:
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
    except FileNotFoundError:
        pytest.skip("no mount here")
    try:
        run(tiny("gpt2"), disk / "out")
        with pytest.raises(OutputError, match="is a mount point"):
            check_output(disk, [], True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
