"""checkpoint/writer.py: where OUT may be, what goes along with it, one publication, nothing lost."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from checkpoint_folders import INDEX, complete, everything, new_folder, old_folder  # noqa: F401 - fixtures

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter, check_output
from hpa_merge.errors import OutputError


def refused(out: Path, *inputs: Path, overwrite: bool = False, needed: int = 0) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(OutputError) as caught:
        check_output(out, inputs, overwrite, needed=needed)
    assert sorted(out.parent.rglob("*")) == before
    return str(caught.value)


# --- side files ------------------------------------------------------------------------------------------------------


def test_side_files_go_along(old: Path, new: Path, tmp_path: Path) -> None:
    (new / "templates").mkdir()
    (new / "templates" / "tool.jinja").write_bytes(b"\r\n{{ x }}\x00")
    (new / "tokenizer.json").symlink_to("templates/tokenizer.json")
    (new / "templates" / "tokenizer.json").write_text("{}")
    (new / "modeling_new.py").write_text("#!/bin/sh")
    (new / "modeling_new.py").chmod(0o700)
    for name in ("README.md", "hpa_report.json", "pytorch_model.bin", ".gitattributes", "optimizer.pt"):
        (new / name).write_text("NEW's")
    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        complete(writer, source)
        writer.publish({"README.md": b"ours", "hpa_report.json": b"ours"})
    out = tmp_path / "out"
    expected = everything(new) | {"README.md": b"ours", "hpa_report.json": b"ours"}
    for name in ("pytorch_model.bin", ".gitattributes", "optimizer.pt"):
        del expected[name]
    assert everything(out) == expected
    assert not (out / "tokenizer.json").is_symlink()
    ordinary = (new / "templates" / "tokenizer.json").stat().st_mode
    assert {path.stat().st_mode for path in out.rglob("*") if path.is_file()} == {ordinary}


def test_the_index_comes_last(old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NoReturn:
        raise OSError(errno.EIO, "broken disk")

    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old, new])
        complete(writer, source)
        assert not (writer.partial / INDEX).exists()
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError) as caught:
            writer.publish({})
        assert str(caught.value) == (
            f"{writer.partial} cannot be written (broken disk): check the disk, or choose another place for OUT."
        )
        assert not (writer.partial / INDEX).exists()
        assert not writer.out.exists()
        monkeypatch.undo()
        writer.publish({})
    assert everything(tmp_path / "out") == everything(new)


# --- overwrite -------------------------------------------------------------------------------------------------------


BEFORE = {"config.json": b'{"model_type": "before"}', "model.safetensors": b"before"}
"""A checkpoint that is replaced, or is not."""


def checkpoint(folder: Path, **more: str) -> Path:
    """A folder that --overwrite may delete, with more files by name."""
    folder.mkdir()
    for name, content in BEFORE.items():
        (folder / name).write_bytes(content)
    for name, text in more.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", ["checkpoint", "empty folder"])
def test_overwrite(kind: str, old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "checkpoint":
        checkpoint(out)
    else:
        out.mkdir()
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, overwrite=True, inputs=[old])
        complete(writer, source)
        if kind == "checkpoint":
            assert everything(out) == BEFORE
        writer.publish({})
    assert everything(out) == everything(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "out"]


@pytest.mark.parametrize("interruption", [OSError(errno.EBUSY, "busy"), KeyboardInterrupt()])
def test_the_old_out_comes_back(
    interruption: BaseException, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = checkpoint(tmp_path / "out")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "out.partial":
            raise interruption
        return rename(self, target)

    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, overwrite=True, inputs=[old])
        complete(writer, source)
        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            writer.publish({})
        monkeypatch.undo()
        writer.abort()
    assert everything(out) == BEFORE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "out"]


def test_an_out_that_appears_meanwhile_is_kept(old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, out, inputs=[old])
        complete(writer, source)
        out.mkdir()
        with pytest.raises(OutputError, match="exists already"):
            writer.publish({})
        writer.abort()
    assert not any(out.iterdir())


# --- what is refused: the place --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "remedy"), [(Path.mkdir, "another folder, or replace it with --overwrite"), (Path.touch, "another folder")]
)
def test_out_exists(make: Any, remedy: str, old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    sentence = f"OUT {out} exists already: choose {remedy}."
    assert refused(out, old) == sentence
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError) as caught:
        CheckpointWriter(source, out, inputs=[old])
    assert str(caught.value) == sentence
    assert not (tmp_path / "out.partial").exists()


def test_overwrite_deletes_checkpoints_only(old: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    assert refused(out, old, overwrite=True) == (
        f"OUT {out} holds other things than a checkpoint (it has no config.json), and --overwrite would delete them: "
        "choose another folder."
    )


@pytest.mark.parametrize("relation", ["equal", "inside", "contains", "link", "working folder"])
def test_out_and_inputs_overlap(relation: str, old: Path, tmp_path: Path) -> None:
    out = {"equal": old, "inside": old / "sub" / "out", "contains": tmp_path}.get(relation, tmp_path / "out")
    place, source = out, old
    if relation == "link":
        out.symlink_to(old)
    elif relation == "working folder":
        place = source = old.rename(tmp_path / "out.partial")
    assert refused(out, Path("/elsewhere"), source, overwrite=True) == (
        f"OUT {place} overlaps the input {source}, and inputs are never written to: choose a folder outside of it."
    )


def test_an_input_behind_a_link_overlaps_too(old: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    assert "overlaps the input" in refused(old / "out", tmp_path / "link")


def test_leftovers_of_another_run(old: Path, tmp_path: Path) -> None:
    out, partial, replaced = (tmp_path / name for name in ("out", "out.partial", "out.replaced"))
    partial.mkdir()
    assert refused(out, old) == (
        f"{partial} is there from a run that was interrupted: resume it with --resume, or delete it."
    )
    partial.rename(replaced)
    assert refused(out, old) == (
        f"{replaced} holds the OUT that an interrupted run was about to replace: move it away or delete it."
    )


def test_two_runs_at_the_same_moment(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.writer.check_output", lambda *_, **__: None)
    (tmp_path / "out.partial").mkdir()
    with (
        Checkpoint.open(old, "NEW") as source,
        pytest.raises(OutputError, match="is there from a run that was interrupted"),
    ):
        CheckpointWriter(source, tmp_path / "out", inputs=[old])
    assert (tmp_path / "out.partial").exists()


def test_parent_missing_or_closed(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "none" / "out"
    assert refused(out, old) == (
        f"OUT {out} cannot be made, because the folder {out.parent} does not exist: create it first."
    )
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who may run this, may write anywhere
    out = tmp_path / "out"
    assert refused(out, old) == (
        f"OUT {out} cannot be made, because you may not write to {tmp_path}: choose another place."
    )


def test_not_enough_room(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in old.iterdir())
    usage = type("usage", (), {"free": size - 1})
    monkeypatch.setattr("hpa_merge.checkpoint.output.shutil.disk_usage", lambda _: usage)
    out = tmp_path / "out"
    assert refused(out, old, needed=15_640_000_000) == (
        f"OUT {out} needs 15.6 GB and only {size - 1} bytes are free there: free some space, or choose another disk."
    )
    with Checkpoint.open(old, "NEW") as source, pytest.raises(OutputError, match=f"needs {size} bytes and only"):
        CheckpointWriter(source, out, inputs=[old])
    usage.free = size
    check_output(out, [old], False, needed=size)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_relative_out(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Checkpoint.open("old", "NEW") as source:
        writer = CheckpointWriter(source, "out/", inputs=["old"])
        assert writer.partial == tmp_path / "out.partial"
        complete(writer, source)
        writer.publish({})
    assert writer.out == tmp_path / "out"
