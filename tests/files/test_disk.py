"""disk.py: what is written is a regular file with one name, and is replaced whole."""

import os
import stat
from pathlib import Path

import pytest

from hpa_merge.files.disk import UNFINISHED, Foreign, inside, mount_points, open_written, overlap, write_whole


def make(kind: str, place: Path, victim: Path) -> None:
    """Something at ``place`` that is no file of ours."""
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "broken link":
        place.symlink_to(victim.with_name("nowhere"))
    elif kind == "hard link":
        place.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()


FOREIGN = ["link", "broken link", "hard link", "pipe", "device", "folder"]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_not_opened(kind: str, missing: bool, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("theirs")
    make(kind, tmp_path / "place", victim)
    with pytest.raises(Foreign):
        os.close(open_written(tmp_path / "place", missing=missing))
    assert victim.read_text() == "theirs"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["link", "broken link", "hard link", "device"])
def test_a_file_is_replaced_and_never_written_through(kind: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("theirs")
    make(kind, place := tmp_path / "place", victim)
    write_whole(place, b"ours")
    assert stat.S_ISREG(place.lstat().st_mode)
    assert place.read_bytes() == b"ours"
    assert victim.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "victim"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    make(kind, place := tmp_path / "place", tmp_path / "victim")
    with pytest.raises(Foreign):
        write_whole(place, b"ours", through=True)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert stat.S_ISCHR(Path("/dev/zero").stat().st_mode)


def test_through_the_users_own_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"after", through=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "after"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_what_fails_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("before")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_text() == "before"
    assert not list(tmp_path.glob(f"{UNFINISHED}*"))


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o000])
def test_permissions_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_places_are_compared_by_inode(tmp_path: Path) -> None:
    """A hard link is another name of one file; a link in the middle of a path leads into a folder."""
    (folder := tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    (file := tmp_path / "file").write_text("")
    (tmp_path / "other").hardlink_to(file)
    assert inside(tmp_path / "link" / "new", [tmp_path / "folder"]) == tmp_path / "folder"
    assert inside(tmp_path / "other", [file]) == file
    assert inside(tmp_path / "new", [tmp_path / "folder", file]) is None
    assert overlap([tmp_path / "folder"], [tmp_path / "link"]) == (tmp_path / "folder", tmp_path / "link")
    assert list(mount_points(tmp_path)) == []
