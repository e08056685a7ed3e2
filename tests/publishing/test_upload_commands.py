"""``hpa-merge push``, and merges that publish their OUT at the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CARD, REPORT, TinyCase
from hub_uploads import TOKEN, Store, UploadHub, variables
from pushing import ID, published, run

import hpa_merge
from hpa_merge.errors import ConfigError
from hpa_merge.verification import verify

pytestmark = [
    pytest.mark.gate,
    pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning"),  # huggingface_hub, of httpx
]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the commands ---


def test_the_command(hub: UploadHub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("push", out, ID, "--private") == 0
    printed = capsys.readouterr()
    commit = hub.repositories[ID].heads["main"]
    size = sum(map(len, published(hub).values())) / 1e6
    assert printed.out == (
        f"Made the private repository {ID}.\n"
        f"With its name on the Hub and without local paths: {CARD}, {REPORT}.\n"
        f"{out} is published, {len(published(hub))} files, {size:.1f} MB: {hub.address}/{ID}/commit/{commit}\n"
    )
    assert printed.err == ""
    assert run("push", out, ID) == 0
    assert f"{ID} holds all of {out} already: " in capsys.readouterr().out
    assert run("push", out, "lab/second", "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert run("push", out, "others/x") == 2
    assert capsys.readouterr().err.startswith("Error: others/x: the Hub does not let your token write there")


def test_by_itself(hub: UploadHub, out: Path, tmp_path: Path) -> None:
    """With HF_ENDPOINT, as a user has it."""
    environment = os.environ | variables(hub, tmp_path / "cache")
    command = [sys.executable, "-m", "hpa_merge", "push", str(out), ID]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(f"{hub.address}/{ID}/commit/{hub.repositories[ID].heads['main']}")
    assert TOKEN not in done.stdout


def words_of(case: TinyCase, out: Path) -> list[object]:
    return [case.old, case.new, "--safety-calib", case.safety, "--task-calib", case.task, "-o", out]


def test_merged_and_published(
    hub: UploadHub, made: tuple[TinyCase, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(made[0], tmp_path / "out")
    assert run(*words, "--push-to-hub", ID, "--private") == 0
    assert f"{hub.address}/{ID}/commit/" in capsys.readouterr().out
    assert hub.repositories[ID].private
    assert set(published(hub)) == set(content(tmp_path / "out"))


def test_merged_and_not_published(
    hub: UploadHub, made: tuple[TinyCase, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OUT stays, and the sentence says how to go on."""
    hub.drops["PUT /storage/"] = 10**6
    out = tmp_path / "my out"
    assert run(*words_of(made[0], out), "--push-to-hub", ID, "--private", "-q") == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert complaint.endswith(f" OUT {out} is complete; publish it with: hpa-merge push '{out}' {ID} --private\n")
    assert not verify(out).problems


def test_merged_and_interrupted(
    hub: UploadHub,
    made: tuple[TinyCase, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpa_merge.publishing.upload.verify", interrupt)
    assert run(*words_of(made[0], tmp_path / "out"), "--push-to-hub", ID, "-q") == 130
    note = f"Note: OUT {tmp_path / 'out'} is complete; publish it with: hpa-merge push {tmp_path / 'out'} {ID}\n"
    assert capsys.readouterr().err.startswith(note)
    assert (tmp_path / "out" / CARD).is_file()


def test_what_can_be_refused_is_refused_before_the_merge(
    hub: UploadHub,
    made: tuple[TinyCase, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(made[0], tmp_path / "out")
    assert run(*words, "--private") == 2
    assert "--private is for --push-to-hub ID." in capsys.readouterr().err
    assert run(*words, "--push-to-hub", "nothing") == 2
    hub.repositories[ID] = Store()
    assert run(*words, "--push-to-hub", ID, "--private") == 2
    monkeypatch.delenv("HF_TOKEN")
    assert run(*words, "--push-to-hub", ID) == 2
    assert "cannot be uploaded without a token" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_that_contradict(out: Path) -> None:
    with pytest.raises(ConfigError, match="on the main branch only"):
        hpa_merge.push(out, ID, branch="x", pull_request=True)
    with pytest.raises(ConfigError, match="is not the name of a branch"):
        hpa_merge.push(out, ID, branch="a b")
