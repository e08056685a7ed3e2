"""What somebody, or a broken disk, puts where OUT is made: nothing is written through it, and nothing is believed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase
from interruptions import beside, interrupt, raising, run, shards_of, without_warnings

from hpa_merge import HPAConfig, sweep
from hpa_merge.checkpoint import CheckpointWriter
from hpa_merge.errors import ChangedError, CheckpointError, OutputError

Tiny = Callable[..., TinyCase]


# --- OUT.partial ---


@pytest.mark.parametrize("kind", ["links to OLD", "hard links to OLD", "links to NEW", "a pipe"])
def test_shards_that_were_replaced(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    interrupt(case, out)
    source = case.new if kind.endswith("NEW") else case.old
    before = shards_of(source)
    for shard in Path(f"{out}.partial").glob("*.safetensors"):
        shard.unlink()
        if kind == "a pipe":
            os.mkfifo(shard)
        elif kind.startswith("hard"):
            shard.hardlink_to(source / shard.name)
        else:
            shard.symlink_to(source / shard.name)
    with pytest.raises(OutputError, match=re.escape(f"{out}.partial cannot be resumed (")):
        run(case, out, resume=True)
    assert shards_of(source) == before


def test_a_partial_folder_that_is_a_link(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    interrupt(case, out)
    Path(f"{out}.partial").rename(tmp_path / "elsewhere")
    Path(f"{out}.partial").symlink_to(tmp_path / "elsewhere")
    before = shards_of(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link, a file or a mount point"):
        run(case, out, resume=True)
    assert shards_of(tmp_path / "elsewhere") == before


def test_a_folder_without_a_journal_is_not_deleted(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    (partial := tmp_path / "out.partial").mkdir()
    (partial / "thesis.tex").write_text("work")
    with pytest.raises(OutputError, match="has no journal and holds other files than a run writes first"):
        run(case, out, resume=True)
    assert (partial / "thesis.tex").read_text() == "work"


def put(place: Path, kind: str) -> None:
    """Something of the user's."""
    if kind == "a link":
        (place / "theirs").symlink_to(place.parent)
    elif kind == "in a folder":
        (place / "theirs").mkdir()
        (place / "theirs" / "thesis.tex").write_text("work")
    else:
        (place / "theirs").write_text("work")


@pytest.mark.parametrize(
    ("kind", "shard"), [("a file", "whole"), ("in a folder", "whole"), ("in a folder", "gone"), ("a link", "cut off")]
)
def test_what_lies_beside_the_shards_is_not_deleted(kind: str, shard: str, tiny: Tiny, tmp_path: Path) -> None:
    """Neither where the run is resumed nor where it begins anew."""
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt(case, out)
    partial = Path(f"{out}.partial")
    put(partial, kind)
    if shard == "gone":
        next(partial.glob("*.safetensors")).unlink()
    elif shard == "cut off":
        os.truncate(next(partial.glob("*.safetensors")), 1000)
    before = sorted(partial.rglob("*"))
    with pytest.raises(OutputError, match=r"holds theirs.*, which this run did not put there: move it away"):
        run(case, out, resume=True)
    assert sorted(partial.rglob("*")) == before
    (partial / "theirs").rename(tmp_path / "theirs")
    run(case, out, resume=True)
    assert beside(out) == ["out"]


@pytest.mark.parametrize("kind", ["a file", "in a folder"])
@pytest.mark.parametrize("ending", ["carry", "abort"])
def test_what_is_put_there_meanwhile_is_not_deleted(
    ending: str, kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when the side files are copied nor when the run is given up."""
    real = getattr(CheckpointWriter, ending)

    def putting(self: CheckpointWriter, *arguments: Any, **options: Any) -> Any:
        if not (self.partial / "theirs").exists():
            put(self.partial, kind)
        return real(self, *arguments, **options)

    monkeypatch.setattr(CheckpointWriter, ending, putting)
    if ending == "abort":
        monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(KeyboardInterrupt()))
    with pytest.raises(OutputError if ending == "carry" else KeyboardInterrupt):
        run(tiny("gpt2"), tmp_path / "out")
    assert (tmp_path / "out.partial" / "theirs").exists()


def test_what_is_put_there_meanwhile_is_not_published(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    real = CheckpointWriter.manifest

    def manifest(self: CheckpointWriter, *arguments: Any) -> dict[str, str]:
        (self.partial / "payload.bin").write_text("theirs")
        return real(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "manifest", manifest)
    with pytest.raises(OutputError, match=r"holds payload\.bin, which this run did not put there"):
        run(tiny("gpt2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["zeroed", "one byte", "the head"])
def test_bytes_that_a_broken_disk_has_lost(damage: str, tiny: Tiny, tmp_path: Path) -> None:
    """What was durable is looked at before it is believed, and is done again where it is not what was written."""
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, tmp_path / "whole")
    interrupt(case, out)
    line = json.loads(Path(f"{out}.partial.journal").read_text().splitlines()[1])  # the first unit
    with CheckpointWriterPlaces(case) as places:
        shard, start, stop = places[min(line["tensors"])]
    with (Path(f"{out}.partial") / shard).open("r+b") as file:
        if damage == "the head":
            start, stop = 0, 64
        file.seek(start)
        byte = file.read(1)
        file.seek(start)
        file.write(bytes([byte[0] ^ 1]) if damage == "one byte" else bytes(stop - start))
    report = run(case, out, resume=True)
    assert without_warnings(out) == without_warnings(tmp_path / "whole")
    noted = [note for note in report.run.notes if "had other bytes on the disk than were written" in note]
    assert len(noted) == (damage != "the head")


class CheckpointWriterPlaces:
    """Where each tensor of NEW lies: shard, start, stop."""

    def __init__(self, case: TinyCase) -> None:
        from hpa_merge.checkpoint import Checkpoint

        self._new = Checkpoint.open(case.new, "NEW")

    def __enter__(self) -> dict[str, tuple[str, int, int]]:
        return {name: (info.shard, info.start, info.stop) for name, info in self._new.tensors.items()}

    def __exit__(self, *_: object) -> None:
        self._new.close()


# --- inputs that change ---


def rewrite(path: Path, *, keep_time: bool = False) -> None:
    """Other weights in the same file, of the same length."""
    times = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-4:] = bytes(byte ^ 1 for byte in raw[-4:])
    path.write_bytes(raw)
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("several", [False, True], ids=["one OUT", "two"])
@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("which", ["old", "new"])
def test_a_shard_rewritten_during_the_merge(
    which: str, keep_time: bool, several: bool, tiny: Tiny, tmp_path: Path
) -> None:
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    shard = sorted(getattr(case, which).glob("*.safetensors"))[-1]

    def on_progress(what: str, done: int, total: int) -> None:
        if done == 2:
            rewrite(shard, keep_time=keep_time)

    outs = {out: HPAConfig(), **({tmp_path / "out-2": HPAConfig(p_max=20.0)} if several else {})}
    files = {"safety_calib": case.safety, "task_calib": case.task}
    with pytest.raises(ChangedError, match="was changed while it was read, and OUT would be of neither version"):
        sweep(case.old, case.new, outs, **files, on_progress=on_progress)
    assert beside(out) == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "task.jsonl"])
def test_another_input_that_changes(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """A side file of NEW, its configuration, a calibration file; by another file in its place too."""
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    task = tmp_path / "task.jsonl"
    shutil.copy(case.task, task)
    path = task if name == "task.jsonl" else case.new / name

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "drawing the page":
            shutil.copy2(path, tmp_path / "copy")
            (tmp_path / "copy").replace(path)

    with pytest.raises(ChangedError, match=re.escape(f"the input {path} was changed while it was read")):
        run(case._replace(task=task), out, on_progress=on_progress)
    assert not out.exists()


def test_resumed_with_other_weights_of_the_same_time(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    interrupt(case, out)
    rewrite(sorted(case.new.glob("*.safetensors"))[-1], keep_time=True)
    with pytest.raises(OutputError, match="was begun with content of NEW "):
        run(case, out, resume=True)


# --- side files of NEW ---


def test_side_files_that_out_cannot_have_are_found_at_the_start(tiny: Tiny, tmp_path: Path) -> None:
    from hpa_merge.engine.preview import preview
    from hpa_merge.engine.request import MergeRequest

    case = tiny("gpt2").copied_to(tmp_path)
    job = MergeRequest(case.old, case.new, {tmp_path / "out": HPAConfig()}, case.safety, (case.task,))
    strange = os.fsencode(case.new) + b"/caf\xe9.json"
    with open(strange, "wb"):  # noqa: PTH123 - a name that pathlib shows as it is
        pass
    with pytest.raises(CheckpointError, match="holds a file whose name is not UTF-8"):
        preview(job)


@pytest.mark.parametrize("name", ["README.md", "hpa_report.json", "hpa_report.html", "hpa_columns.png"])
@pytest.mark.parametrize("inner", ["file.txt", "config.json", "tokenizer.json"])
def test_a_folder_where_out_has_a_file(name: str, inner: str, tiny: Tiny, tmp_path: Path) -> None:
    """It stays where it is: refused at the start, or left out and named; it never costs a finished merge."""
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    (case.new / name).mkdir()
    (case.new / name / inner).write_text("{}")
    with suppress(CheckpointError):
        run(case, out)
    assert beside(out) in ([], ["out"])
    assert not (out / name).is_dir()


def test_a_sparse_side_file_is_counted_in_full(tiny: Tiny, tmp_path: Path) -> None:
    from hpa_merge.engine.preview import preview
    from hpa_merge.engine.request import MergeRequest

    case = tiny("gpt2").copied_to(tmp_path)
    with (case.new / "vocab.json").open("ab") as file:
        file.truncate(2 * 10**12)
    job = MergeRequest(case.old, case.new, {tmp_path / "out": HPAConfig()}, case.safety, (case.task,))
    with pytest.raises(OutputError, match=r"needs 2\.0 TB and only"):
        preview(job)
