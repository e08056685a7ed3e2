"""What push says of somebody's machine: nothing in what we wrote, and a note of what NEW's own files say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from adapters import lora, make_adapter
from cases import TinyCase
from hub_uploads import UploadHub
from pushing import ID, published, run

import hpa_merge
from hpa_merge import merge
from hpa_merge.files.names import CARD, REPORT
from hpa_merge.verification import verify

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning"),  # huggingface_hub, of httpx
]

SECRET = "confidential"


@pytest.fixture(name="case")
def a_case(tiny: Callable[..., TinyCase], tmp_path: Path) -> TinyCase:
    """In folders whose names are nobody's affair; NEW is an adapter that was trained on OLD by its path."""
    case = tiny("llama").copied_to(tmp_path / SECRET)
    adapter = make_adapter(case.old, "llama", lora(), tmp_path / SECRET / "adapter")
    return case._replace(new=adapter)


def leaks(files: dict[str, bytes]) -> set[str]:
    return {name for name, content in files.items() if SECRET.encode() in content}


@pytest.mark.parametrize("page", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_an_adapter(
    page: bool,
    relative: bool,
    case: TinyCase,
    hub: UploadHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = case.new / "adapter_config.json"
    base = json.loads(config.read_text())
    assert base["base_model_name_or_path"] == str(case.old)
    if relative:
        monkeypatch.chdir(tmp_path)
        config.write_text(json.dumps(base | {"base_model_name_or_path": f"{SECRET}/old"}))
    out = tmp_path / SECRET / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=page)
    assert SECRET not in (out / CARD).read_text()
    report = hpa_merge.push(out, ID)
    assert report.notes == ()
    assert leaks(published(hub)) == set()
    assert "trained on old" in json.loads(published(hub)[REPORT])["run"]["adapter"]
    assert "trained on old" in published(hub)[CARD].decode()

    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in published(hub).items():
        (copy / name).write_bytes(content)
    assert verify(copy).problems == ()


def test_a_card_that_an_earlier_version_wrote(case: TinyCase, hub: UploadHub, tmp_path: Path) -> None:
    out = tmp_path / SECRET / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False)
    card = (out / CARD).read_text()
    leaking = card.replace("trained on old", f"trained on {case.old}") + "\nMine.\n"
    (out / CARD).write_text(leaking)
    assert hpa_merge.push(out, ID).notes == ()
    assert leaks(published(hub)) == set()
    assert published(hub)[CARD].decode().endswith("\nMine.\n")


def test_what_news_own_files_say(
    tiny: Callable[..., TinyCase],
    hub: UploadHub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They go up byte for byte: it is told before, in a dry run too."""
    case = tiny("llama").copied_to(tmp_path / SECRET)
    config = json.loads((case.new / "config.json").read_text())
    (case.new / "config.json").write_text(json.dumps(config | {"_name_or_path": f"/home/{SECRET}/base"}))
    (case.new / "NOTICE.txt").write_text(f"See /mnt/{SECRET}/a and ~/{SECRET}/b.")
    (case.new / "README.md").write_text(f"Trained in /data/{SECRET}/runs.\n")
    out = tmp_path / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False)
    expected = [
        f"Note: NOTICE.txt contains the local path /mnt/{SECRET}/a and 1 more, and is published unchanged.",
        f"Note: README.md contains the local path /data/{SECRET}/runs, and is published unchanged.",
        f"Note: config.json contains the local path /home/{SECRET}/base, and is published unchanged.",
    ]
    assert run("push", out, ID, "--dry-run") == 0
    assert capsys.readouterr().err.splitlines() == expected
    told: list[tuple[str, bool]] = []
    hpa_merge.push(out, ID, on_note=lambda note: told.append((note, ID in hub.repositories)))
    assert told == [(line.removeprefix("Note: "), False) for line in expected]
    assert leaks(published(hub)) == {"NOTICE.txt", "README.md", "config.json"}
    assert run("push", out, "lab/other", "-q") == 0
    assert capsys.readouterr() == ("", "")
