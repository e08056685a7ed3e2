"""``verify`` and the files of OUT: each is named with its digest, and what is added, missing or a link is a problem."""

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import CARD, DRAW, REPORT, TinyCase
from published import INDEX, Published, seal

import hpa_merge
from hpa_merge import VerifyReport, merge
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.errors import CheckpointError
from hpa_merge.render import folder
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

pytestmark = pytest.mark.gate

Make = Callable[..., Published]
PAGE, PICTURE = "hpa_report.html", "hpa_columns.png"


@pytest.fixture(scope="module")
def drawn_once(sound: Make, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One with its page and pictures, not to be written to."""
    made, out = sound(), tmp_path_factory.mktemp("drawn") / "out"
    shutil.copytree(made.out, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "draw", DRAW)
        return made._replace(out=out, report=hpa_merge.write_report(out))


@pytest.fixture
def drawn(drawn_once: Published, tmp_path: Path) -> Published:
    """A copy of it, to be damaged."""
    shutil.copytree(drawn_once.out, tmp_path / "out")
    return drawn_once._replace(out=tmp_path / "out")


def test_every_file_is_in_the_manifest(drawn: Published) -> None:
    files = {path.relative_to(drawn.out).as_posix() for path in drawn.out.rglob("*") if path.is_file()}
    assert drawn.report.manifest.keys() == files - {CARD, REPORT}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", INDEX, PAGE, PICTURE} < drawn.report.manifest.keys()
    result = verify(drawn.out)
    assert result.problems == ()
    assert result.unchecked[0] == f"{CARD} may be edited, and was not checked."


def test_a_merge_that_draws_names_what_it_draws(drawing: None, sound: Make, tmp_path: Path) -> None:
    case, out = sound().case, tmp_path / "out"
    report = hpa_merge.merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)
    assert {PAGE, PICTURE} < report.manifest.keys()
    assert verify(out).problems == ()


CHANGED = ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", INDEX, PAGE, PICTURE]


@pytest.mark.parametrize("name", CHANGED)
def test_a_file_that_was_changed(name: str, drawn: Published) -> None:
    with (drawn.out / name).open("ab") as file:
        file.write(b" ")
    (problem,) = drawn.alone()
    assert problem.startswith(f"{name} is not the file that the merge wrote: SHA-256 {drawn.report.manifest[name]} exp")


ADDED = [
    *("optimizer.pt", "pytorch_model.bin", "modeling_llama.py", "vocab.txt", "chat_template.json", "notes.md"),
    *("additional_chat_templates/tool.jinja", "sub/config.json", "LICENSE", "hpa_evaluation.png", "model.gguf"),
]


@pytest.mark.parametrize("name", ADDED)
def test_a_file_that_was_added(name: str, drawn: Published) -> None:
    (drawn.out / name).parent.mkdir(exist_ok=True)
    (drawn.out / name).write_bytes(pickle.dumps(print))
    remedy = ": draw it again with hpa-merge report" if name == "hpa_evaluation.png" else ""
    assert drawn.alone() == [f"{name} is in OUT and not in the report's manifest{remedy}."]


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
def test_a_file_that_is_missing(name: str, drawn: Published) -> None:
    (drawn.out / name).unlink()
    assert drawn.alone() == [f"{name} is in the report's manifest and not in OUT."]


def test_a_page_that_is_missing_is_said(drawn: Published) -> None:
    """It holds nothing that is loaded, and is not fetched from the Hub with a model."""
    (drawn.out / PAGE).unlink()
    result = verify(drawn.out)
    assert result.problems == ()
    assert f"{PAGE}: drawn by the merge and missing in OUT; the model does not need them." in result.unchecked


def test_hidden_files_are_said(drawn: Published) -> None:
    """Those that the Hub's client leaves in a folder."""
    for name in (".gitattributes", ".cache/huggingface/download/config.json.metadata", "sub/.x"):
        (drawn.out / name).parent.mkdir(parents=True, exist_ok=True)
        (drawn.out / name).touch()
    result = verify(drawn.out)
    assert result.problems == ()
    assert "Hidden, and not checked: .cache, .gitattributes, sub/.x." in result.unchecked


def test_the_card_may_be_edited_or_deleted(drawn: Published) -> None:
    (drawn.out / CARD).write_text("A model card may be edited.")
    assert drawn.alone() == []
    (drawn.out / CARD).unlink()
    assert drawn.alone() == []


@pytest.mark.parametrize("target", ["same", "secret", "/proc/self/environ", "/dev/zero"])
@pytest.mark.parametrize("name", ["tokenizer.json", "extra.json"])
def test_a_link_out_is_not_followed(name: str, target: str, drawn: Published, tmp_path: Path) -> None:
    if target == "same" and name in drawn.report.manifest:
        (drawn.out / name).rename(tmp_path / target)
    else:
        (tmp_path / target).exists() or (tmp_path / target).write_text("a key")
        (drawn.out / name).unlink(missing_ok=True)
    (drawn.out / name).symlink_to(tmp_path / target)
    assert name in refused(drawn.out)


@pytest.mark.parametrize("target", ["README.md of another", "/proc/self/environ", "missing", "folder"])
def test_the_card_is_a_file_of_outs_own(target: str, drawn: Published, tmp_path: Path) -> None:
    """Its content is not compared, and what it is is."""
    card = drawn.out / CARD
    (tmp_path / "README.md of another").write_text("a card")
    card.unlink()
    if target == "folder":
        (tmp_path / target).mkdir()
    card.symlink_to(tmp_path / target)
    (problem,) = drawn.alone()
    assert problem.startswith("README.md is not OUT's own: it ")


def refused(out: Path) -> str:
    """What is wrong, whether the folder is opened or not."""
    try:
        (problem,) = verify(out).problems
    except CheckpointError as error:
        return str(error)
    return problem


def test_a_folder_that_is_a_link(drawn: Published, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.json").write_text("{}")
    (drawn.out / "sub").symlink_to(tmp_path / "home")
    assert drawn.alone() == ["sub is in OUT and not in the report's manifest."]


def test_a_pipe_is_not_waited_for(drawn: Published) -> None:
    (drawn.out / "tokenizer.json").unlink()
    os.mkfifo(drawn.out / "tokenizer.json")
    assert "tokenizer.json" in refused(drawn.out)


def test_what_new_has_otherwise(published: Make) -> None:
    """With OLD and NEW a manifest that a forger has written does not help."""
    forged = published()
    with (forged.out / "tokenizer.json").open("a") as file:
        file.write(" ")
    (forged.out / "generation_config.json").unlink()
    seal(forged.out)
    assert forged.alone() == []
    assert forged.with_inputs() == [
        "generation_config.json is in NEW and not in OUT.",
        "tokenizer.json is not NEW's, byte for byte.",
    ]
    (forged.out / "generation_config.json").write_bytes((forged.case.new / "generation_config.json").read_bytes())
    (forged.out / "tokenizer.json").write_bytes((forged.case.new / "tokenizer.json").read_bytes())
    (forged.out / "modeling_llama.py").write_text("import os")
    seal(forged.out)
    assert forged.alone() == []
    assert forged.with_inputs() == ["modeling_llama.py is in OUT and does not come from NEW."]


# --- the report drawn again ---


def test_the_report_drawn_again_vouches_for_what_it_draws_alone(drawn: Published) -> None:
    with (drawn.out / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    (drawn.out / "notes.md").touch()
    hpa_merge.write_report(drawn.out)
    assert [problem.partition(" is ")[0] for problem in drawn.alone()] == ["tokenizer.json", "notes.md"]


def weights_alone(out: Path) -> dict[str, str]:
    """Let the report be one of an earlier version; the manifest that it had."""
    report = read_report(out)
    manifest = {name: digest for name, digest in report.manifest.items() if "safetensors" in name}
    run = dataclasses.replace(report.run, machine="", contents={})
    (out / REPORT).write_text(dataclasses.replace(report, manifest=manifest, run=run).to_json())
    return report.manifest


def test_a_report_of_an_earlier_version(published: Make) -> None:
    old = published()
    manifest = weights_alone(old.out)
    result = verify(old.out)
    assert result.problems == ()
    assert any(s.startswith("The report names only the weights, as in earlier versions") for s in result.unchecked)
    assert old.with_inputs() == []
    (old.out / "optimizer.pt").touch()
    assert old.alone() == ["optimizer.pt is in OUT and not in the report's manifest."]
    (old.out / "optimizer.pt").unlink()
    report = hpa_merge.write_report(old.out)
    assert report.manifest == manifest
    assert any(note.startswith("The manifest of this report named only the weights;") for note in report.run.notes)
    assert not any("names only the weights" in sentence for sentence in verify(old.out).unchecked)


@pytest.mark.parametrize(
    "name",
    ["../old/config.json", "/etc/passwd", "a/../../b", "./config.json", ".env", "a//b", "a\\b", "a\nb", "", REPORT],
)
def test_a_manifest_that_names_what_is_not_outs(name: str, published: Make) -> None:
    forged = published()
    content: dict[str, Any] = json.loads((forged.out / REPORT).read_text())
    content["manifest"][name] = "0" * 64
    (forged.out / REPORT).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"is not a report of hpa-merge \(manifest cannot have"):
        verify(forged.out)


# --- what the report is shown as, and says beside its fields ---


@pytest.fixture(scope="module")
def pictured(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Published:
    """An OUT with its page and its pictures; not to be written to."""
    case, out = tiny("llama").copied_to(tmp_path_factory.mktemp("pictured")), tmp_path_factory.mktemp("at") / "out"
    (case.new / "optimizer.pt").write_bytes(b"state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "draw", DRAW)
        report = merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)
    return Published(case, out, report)


@pytest.fixture
def shown(pictured: Published, tmp_path: Path, drawing: None) -> Published:
    shutil.copytree(pictured.out, tmp_path / "out")
    return pictured._replace(out=tmp_path / "out")


def said_of(result: VerifyReport, word: str) -> list[str]:
    return [sentence for sentence in result.unchecked if word in sentence]


@pytest.mark.gate
def test_what_is_drawn_again_is_what_was_drawn(shown: Published) -> None:
    for result in (shown.full(), shown.again()):
        assert result.problems == ()
        assert result.checked["drawn files"] == len(MADE & {path.name for path in shown.out.iterdir()}) - 1 > 5
        assert not said_of(result, "were not compared")
        assert not said_of(result, "fingerprint")


@pytest.mark.gate
@pytest.mark.parametrize("name", ["hpa_report.html", "hpa_kappa.png", "hpa_evaluation.png"])
def test_a_page_or_a_picture_that_was_forged(name: str, shown: Published) -> None:
    """With a manifest that says so; a picture that the report has not is forged too."""
    content = (shown.out / name).read_bytes() if name != "hpa_evaluation.png" else b"\x89PNG"
    (shown.out / name).write_bytes(content.replace(b"columns", b"secrets") + b"\n")
    seal(shown.out)
    assert shown.alone() == []
    wrong = f"{name} does not show the report: draw it again with hpa-merge report OUT."
    assert list(shown.again().problems) == shown.with_inputs() == [wrong]


@pytest.mark.gate
def test_elsewhere_only_pictures_may_differ(shown: Published) -> None:
    report = read_report(shown.out)
    page, picture = shown.out / "hpa_report.html", shown.out / "hpa_kappa.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    seal(shown.out, run=dataclasses.replace(report.run, machine="another"))
    result = shown.full()
    assert result.problems == ()
    assert said_of(result, "hpa_kappa.png: the pictures differ")
    page.write_bytes(page.read_bytes() + b" ")
    seal(shown.out)
    assert [problem.split()[0] for problem in shown.with_inputs()] == ["hpa_report.html"]


@pytest.mark.parametrize("versions", [{}, {"jinja2": "0.1"}])
def test_what_others_have_drawn_is_not_compared_and_said_to_be(versions: dict[str, str], shown: Published) -> None:
    seal(shown.out, run=dataclasses.replace(read_report(shown.out).run, drawn_with=versions))
    result = shown.full()
    assert "drawn files" not in result.checked
    was = "jinja2 0.1" if versions else "unknown versions"
    assert said_of(result, f"The page and the pictures were not compared: {was} drew them, and this machine has hpa")


@pytest.mark.usefixtures("without_pictures")
def test_where_nothing_can_be_drawn_that_is_said(shown: Published) -> None:
    assert said_of(shown.full(), "The page and the pictures were not compared: they cannot be drawn here")


@pytest.mark.parametrize("names", [(), ("optimizer.pt", "runs"), ("x",)])
def test_other_files_that_were_left_out(names: tuple[str, ...], shown: Published) -> None:
    assert read_report(shown.out).left_out == ("optimizer.pt",)
    for path in shown.out.glob("hpa_*.*"):
        path.name == REPORT or path.unlink()
    seal(shown.out, left_out=names)
    problems = shown.with_inputs()
    assert problems == list(shown.again().problems)
    assert ("optimizer.pt: left out of OUT, and not named in the report's left_out." in problems) == (
        "optimizer.pt" not in names
    )
    assert any("named in the report's left_out, and not left out of NEW." in each for each in problems) == bool(names)


def test_fields_that_follow_from_others_and_fields_that_are_unknown(drawn: Published) -> None:
    content = json.loads((drawn.out / REPORT).read_text())
    (drawn.out / REPORT).write_text(json.dumps(content | {"praise": "safe", "rating": 5}))
    result = verify(drawn.out)
    assert result.problems == ()
    assert "Fields of the report that this version does not know: praise, rating." in result.unchecked
    for warnings in ([], ["All is well."], None):
        (drawn.out / REPORT).write_text(json.dumps(content | {"warnings": warnings}))
        if warnings != content["warnings"]:
            assert drawn.alone() == ["warnings in the report do not follow from its fields."]
    praised = content | {"verdict": content["verdict"] | {"gate": "PASS"}}
    (drawn.out / REPORT).write_text(json.dumps(praised))
    assert drawn.alone() == ["the verdict in the report does not follow from its fields."]


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 64}, {"notes": ("All is well.",)}, {"command": "rm"}])
def test_what_nothing_can_recompute_is_said(change: dict[str, Any], published: Make) -> None:
    forged = published()
    seal(forged.out, run=dataclasses.replace(read_report(forged.out).run, **change))
    for result in (forged.full(), forged.again()):
        assert said_of(result, "command, given, notes")
    assert bool(said_of(result, "The fingerprint in the report differs from this run's.")) == ("fingerprint" in change)
