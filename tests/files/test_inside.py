"""Links in OLD, NEW, an adapter, a tower and OUT: nothing that is not the folder's own is read, copied or published."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import TinyCase
from checkpoint_folders import everything, sharded_folder, single_folder  # noqa: F401 - fixtures

from hpa_merge import merge
from hpa_merge.checkpoint import Checkpoint, open_adapter
from hpa_merge.errors import CheckpointError, OutputError
from hpa_merge.evaluation.running import Answering, opened
from hpa_merge.files import inside as inside_module
from hpa_merge.files.inside import NotInside, TooLong, find_inside, open_inside, read_inside
from hpa_merge.files.names import REPORT
from hpa_merge.render.redraw import write_report
from hpa_merge.report.schema import SCHEMA_VERSION, read_report
from hpa_merge.verification import verify

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----"
OUTSIDE = "it is a link that leads out of the folder"


@pytest.fixture(name="secret")
def a_secret(tmp_path: Path) -> Path:
    """A file of the user's, beside the folder that somebody else has made."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_rsa").write_text(KEY)
    return tmp_path / ".ssh" / "id_rsa"


@pytest.fixture(name="folder")
def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.md").write_text("own")
    return folder


# --- the one function ---


def read_short(folder: Path, name: str) -> bytes:
    return read_inside(folder, name, 2**10)


def links(folder: Path, secret: Path) -> dict[str, str | Path]:
    """Links by name and what they lead to, each of another form, none to a file of the folder's own."""
    (folder / "hop").symlink_to(secret.parent, target_is_directory=True)
    (folder / "again").symlink_to("hop/id_rsa")
    (folder / ".env").write_text(KEY)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text(KEY)
    return {
        "above.md": "../.ssh/id_rsa",
        "absolute.md": secret,
        "through-a-folder.md": "hop/id_rsa",
        "chain.md": "again",
        "up-and-down.md": Path("sub/../../given/../.ssh/id_rsa"),
        "hidden.md": ".env",
        "hidden-folder.md": ".git/config",
        "environ.md": "/proc/self/environ",
        "null.md": "/dev/null",
        "loop.md": "loop.md",
        "gone.md": "gone",
    }


def test_what_is_a_folders_own(folder: Path) -> None:
    (folder / "link.md").symlink_to("sub/a.md")
    (folder / "twice.md").symlink_to(folder / "link.md")
    (folder.parent / "another name").symlink_to(folder)
    for where in (folder, folder.parent / "another name"):
        for name in ("sub/a.md", "link.md", "twice.md"):
            assert read_inside(where, name, 3) == b"own"
            assert find_inside(where, name) == folder.resolve() / "sub" / "a.md"
    with pytest.raises(TooLong, match="longer than 2 bytes"):
        read_inside(folder, "link.md", 2)


def test_what_is_not(folder: Path, secret: Path) -> None:
    for name, target in links(folder, secret).items():
        (folder / name).symlink_to(target)
        for function in (find_inside, open_inside, read_short):
            reason = {"loop.md": "Too many levels", "gone.md": "No such file", "null.md": "it is "}.get(name, "link")
            with pytest.raises(OSError, match=reason):
                function(folder, name)
    for name in ("../.ssh/id_rsa", str(secret), "hop/id_rsa"):
        with pytest.raises(NotInside):
            read_short(folder, name)
    with pytest.raises(IsADirectoryError):
        read_short(folder, "sub")


def test_no_pipe_socket_or_device_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    (folder / "link").symlink_to("pipe")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("it was opened"))
    for name in ("pipe", "socket", "link"):
        with pytest.raises(NotInside, match="it is not a regular file"):
            open_inside(folder, name)


@pytest.mark.parametrize("swapped", ["file", "folder", "pipe"])
def test_what_takes_its_place_after_the_check(
    swapped: str, folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = inside_module._resolve

    def slow(*given: Path) -> tuple[Path, Path]:
        found = resolve(*given)
        if swapped == "folder":
            shutil.rmtree(folder / "sub")
            (secret.parent / "a.md").write_text(KEY)
            (folder / "sub").symlink_to(secret.parent)
        else:
            (folder / "sub" / "a.md").unlink()
            if swapped == "pipe":
                os.mkfifo(folder / "sub" / "a.md")
            else:
                (folder / "sub" / "a.md").symlink_to(secret)
        return found

    monkeypatch.setattr(inside_module, "_resolve", slow)
    with pytest.raises(OSError, match=r"Too many levels|Not a directory|not a regular file"):
        read_short(folder, "sub/a.md")


def test_the_hubs_cache(tmp_path: Path, secret: Path) -> None:
    hub = tmp_path / "hub"
    snapshot, blobs = hub / "models--lab--m" / "snapshots" / "c0", hub / "models--lab--m" / "blobs"
    other = hub / "models--lab--private" / "blobs"
    for place in (snapshot / "sub", blobs / "deep", other):
        place.mkdir(parents=True)
    for place in (blobs / "1", blobs / "deep" / "2", other / "3", hub / "models--lab--m" / "4"):
        place.write_text("blob")
    good = {"a.md": "../../blobs/1", "sub/b.md": "../../../blobs/1", "c.md": str(blobs / "1"), "d.md": "a.md"}
    bad = {
        "e.md": "../../../models--lab--private/blobs/3",
        "f.md": "../../blobs/deep/2",
        "g.md": "../../4",
        "h.md": str(secret),
    }
    for name, target in {**good, **bad}.items():
        (snapshot / name).symlink_to(target)
    assert {name: read_short(snapshot, name) for name in good} == dict.fromkeys(good, b"blob")
    for name in bad:
        with pytest.raises(NotInside):
            read_short(snapshot, name)
    shutil.rmtree(blobs)
    blobs.symlink_to(secret.parent)  # a repository that came in an archive
    (snapshot / "i.md").symlink_to("../../blobs/id_rsa")
    with pytest.raises(NotInside):
        read_short(snapshot, "i.md")


# --- NEW: what is copied ---


def test_links_are_left_out_and_named(single: Path, secret: Path) -> None:
    names = links(single, secret)
    (single / "sub").mkdir()
    (single / "LICENSE.txt").write_text("own")
    (single / "NOTICE").symlink_to("LICENSE.txt")
    (single / "README.md").symlink_to("model.safetensors")
    os.mkfifo(single / "sub" / "config.json")
    del names["null.md"]  # the folder is refused then
    for name, target in names.items():
        (single / name).symlink_to(target)
    with Checkpoint.open(single, "NEW") as checkpoint:
        side = checkpoint.side_files()
        assert {path.as_posix() for path in side.copied} == {"config.json", "LICENSE.txt", "NOTICE"}
        assert {path.as_posix() for path in side.left_out} == {*names, "again", "hop", "README.md", "sub"}
        for name in names:
            with pytest.raises(CheckpointError):
                checkpoint.locate(Path(name))
            with pytest.raises(CheckpointError):
                checkpoint.open_side_file(Path(name))
        with checkpoint.open_side_file(Path("NOTICE")) as file:
            assert file.read() == b"own"


READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "merges.txt")
READ += ("generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja")
READ += ("added_tokens.json", "special_tokens_map.json", "additional_chat_templates/tool.jinja")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("target", ["secret", "/proc/self/environ", "/proc/kmsg"])
def test_a_file_that_is_read_is_refused(name: str, target: str, single: Path, secret: Path) -> None:
    (single / name).parent.mkdir(exist_ok=True)
    (single / name).unlink(missing_ok=True)
    (single / name).symlink_to(secret if target == "secret" else target)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(single, "NEW")
    assert str(caught.value) == f"NEW {single}: {name} is not read, because {OUTSIDE}: put the file itself there."


def test_a_folder_of_templates_that_is_a_link(single: Path, secret: Path) -> None:
    (single / "additional_chat_templates").symlink_to(secret.parent)
    with pytest.raises(CheckpointError, match=OUTSIDE):
        Checkpoint.open(single, "NEW")


def test_the_index_is_refused(sharded: Path, tmp_path: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    index.rename(tmp_path / "index.json")
    index.symlink_to(tmp_path / "index.json")
    with pytest.raises(CheckpointError, match=OUTSIDE):
        Checkpoint.open(sharded, "NEW")


def test_weights_may_lie_elsewhere(sharded: Path, tmp_path: Path) -> None:
    """On another disk, say: of them only tensors are read."""
    (tmp_path / "disk").mkdir()
    for shard in sharded.glob("*.safetensors"):
        shard.rename(tmp_path / "disk" / shard.name)
        shard.symlink_to(tmp_path / "disk" / shard.name)
    with Checkpoint.open(sharded, "NEW") as checkpoint:
        assert checkpoint.read("layers.1.a").shape == (3, 1)


@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/environ", "/dev/zero", "pipe"])
def test_but_they_are_files_with_weights(target: str, sharded: Path, tmp_path: Path) -> None:
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
        target = str(tmp_path / "pipe")
    shard = min(sharded.glob("*.safetensors"))
    shard.unlink()
    shard.symlink_to(target)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(sharded, "NEW")
    told = str(caught.value)
    assert "it does not lead to a file with weights" in told or "neither a file nor a folder" in told


def test_an_adapters_folder(single: Path, secret: Path) -> None:
    (single / "model.safetensors").rename(single / "adapter_model.safetensors")
    (single / "adapter_config.json").write_text("{}")
    (single / "tokenizer_config.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match=OUTSIDE):
        open_adapter(single, "NEW")
    (single / "tokenizer_config.json").unlink()
    (single / "adapter_config.json").unlink()
    (single / "adapter_config.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match=OUTSIDE):
        open_adapter(single, "NEW")


def test_a_model_that_is_evaluated(single: Path, secret: Path) -> None:
    (single / "tokenizer.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match=OUTSIDE), opened(str(single), None, Answering(device="cpu")):  # type: ignore[arg-type]
        pass


# --- a merge, and OUT ---


@pytest.fixture(name="case")
def a_case(tiny: Callable[..., TinyCase], tmp_path: Path) -> TinyCase:
    return tiny("llama").copied_to(tmp_path / "case")


def run(case: TinyCase, out: Path, **options: object) -> None:
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False, **options)  # type: ignore[arg-type]


def test_a_merge_copies_nothing_of_the_users(case: TinyCase, secret: Path, tmp_path: Path) -> None:
    """The card too: NEW's is the body of OUT's, and OLD's gives its licence."""
    links_to = {
        "notes.txt": secret,
        "env.txt": "/proc/self/environ",
        "NOTICE.txt": "../../.ssh/id_rsa",
        "README.md": secret,
    }
    for name, target in links_to.items():
        (case.new / name).unlink(missing_ok=True)
        (case.new / name).symlink_to(target)
    (tmp_path / "private.md").write_text(f"---\nlicense: {KEY}\n---\n")
    (case.old / "README.md").symlink_to(tmp_path / "private.md")
    run(case, tmp_path / "out")
    report = read_report(tmp_path / "out")
    assert report.left_out == ("NOTICE.txt", "README.md", "env.txt", "notes.txt")
    assert "Not carried over from NEW: NOTICE.txt, README.md, env.txt, notes.txt." in report.warnings
    for role in ("NEW", "OLD"):
        assert f"{role}'s README.md was not read ({OUTSIDE}): OUT's model card is made without it." in report.run.notes
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    for name, content in everything(tmp_path / "out").items():
        assert KEY.encode() not in content, name
        assert b"PATH=" not in content, name


def test_a_card_without_an_end(case: TinyCase, tmp_path: Path) -> None:
    with (case.new / "README.md").open("wb") as file:
        file.truncate(2**33)  # 8 GiB that take no room
    run(case, tmp_path / "out")
    assert any("it is longer than" in note for note in read_report(tmp_path / "out").run.notes)
    assert (tmp_path / "out" / "README.md").stat().st_size < 2**16


def test_out_is_read_without_links(case: TinyCase, secret: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(case, out)
    card = out / "README.md"
    card.unlink()
    card.symlink_to(secret)
    with pytest.raises(OutputError) as caught:
        write_report(out)
    assert str(caught.value) == f"{card} is not read, because {OUTSIDE}: put the file itself there."
    assert secret.read_text() == KEY
    card.unlink()

    content = (out / REPORT).read_bytes()
    (out / REPORT).unlink()
    (tmp_path / "report.json").write_bytes(content)
    (out / REPORT).symlink_to(tmp_path / "report.json")
    for function in (read_report, write_report, verify):
        with pytest.raises(CheckpointError, match=f"{REPORT} is not read, because {OUTSIDE}"):
            function(out)
    (out / REPORT).unlink()
    (out / REPORT).symlink_to("/proc/kmsg")
    with pytest.raises(CheckpointError, match=OUTSIDE):
        read_report(out)
    (out / REPORT).unlink()
    (out / REPORT).write_bytes(content)


def test_an_out_in_the_hubs_cache_is_verified(case: TinyCase, tmp_path: Path) -> None:
    run(case, tmp_path / "out")
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "c0", tmp_path / "repo" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "out").iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert verify(snapshot).problems == ()
    assert json.loads(read_inside(snapshot, REPORT, 2**24))["schema_version"] == SCHEMA_VERSION
