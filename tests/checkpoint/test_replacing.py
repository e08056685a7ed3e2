"""checkpoint/replacing.py and inputs.py: what --overwrite deletes, and what counts as an input."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import TinyCase
from checkpoint_folders import everything, old_folder, write_raw  # noqa: F401 - a fixture
from interruptions import run

from hpa_merge.checkpoint import check_output
from hpa_merge.errors import OutputError

Tiny = Callable[..., TinyCase]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A checkpoint folder, as save_pretrained leaves it."""
    folder = tmp_path / "out"
    folder.mkdir()
    names = ("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json")
    names += ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt", "README.md")
    for name in (*names, "chat_template.jinja", "LICENSE", "USE_POLICY.md", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    write_raw(folder / "model.safetensors", {}, b"")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("")
    return folder


def refused(out: Path, *inputs: Path) -> str:
    before = everything(out.parent)
    with pytest.raises(OutputError) as caught:
        check_output(out, inputs, True)
    assert everything(out.parent) == before
    return str(caught.value)


def test_a_checkpoint_may_be_replaced(out: Path, old: Path) -> None:
    check_output(out, [old], True)


def test_what_the_hub_left_may_go(out: Path, old: Path) -> None:
    (out / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (out / ".cache" / "huggingface" / "download" / "config.json.metadata").write_text("")
    (out / ".gitattributes").write_text("")
    check_output(out, [old], True)


def test_the_code_that_the_model_needs_may_go(out: Path, old: Path) -> None:
    (out / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoModel": "modeling_own.OwnModel"}})
    )
    (out / "modeling_own.py").write_text("")
    (out / "configuration_own.py").write_text("")
    check_output(out, [old], True)
    (out / "train.py").write_text("")
    assert f"OUT {out} holds train.py, which does not belong to a checkpoint" in refused(out, old)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "train.py",
            "thesis.tex",
            "task.jsonl",
            "notes.txt",
            ".git/HEAD",
            ".env",
            "src/model.py",
            "data/images/1.png",
        ),
        *("checkpoint-500/model.safetensors", "runs/events", "results.csv", "results.json", ".cache/mine", "a.ipynb"),
    ],
)
def test_what_is_no_part_of_a_checkpoint_is_not_deleted(name: str, out: Path, old: Path) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("work")
    assert refused(out, old) == (
        f"OUT {out} holds {name}, which does not belong to a checkpoint, and --overwrite would delete it: "
        "move it away, or choose another folder."
    )


def test_an_empty_subfolder_and_a_link_are_not_deleted(out: Path, old: Path) -> None:
    (out / "sub").mkdir()
    assert "holds sub, which" in refused(out, old)
    (out / "sub").rmdir()
    (out / "sub").symlink_to(old)
    assert "holds sub, which" in refused(out, old)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("file", "is a file"), ("link", "is a link"), ("broken link", "is a link"), ("pipe", "is neither a file nor")],
)
def test_what_is_no_folder_is_not_replaced(kind: str, said: str, old: Path, tmp_path: Path) -> None:
    import os

    place = tmp_path / "place"
    if kind == "file":
        place.write_text("work")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(old if kind == "never" else tmp_path / ("nowhere" if kind == "broken link" else "other"))
        (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match=f"OUT {place} {said}"):
        check_output(place, [old], True)
    assert os.path.lexists(place)


def test_a_config_alone_is_no_checkpoint(old: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    assert "it has no weights" in refused(project, old)
    (project / "hpa_report.json").write_text('{"schema_version": 1}')  # nor is this a report of ours
    assert "it has no weights" in refused(project, old)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        # A project of somebody who trains something of his own.
        (
            {"config.json": '{"lr": 1}', "train.bin": "x", "best_model.pt": "x", "README.md": ""},
            "config.json of a model",
        ),
        ({"config.json": "[1]", "model.safetensors": None}, "config.json of a model"),
        ({"config.json": "{", "pytorch_model.bin": "x"}, "config.json of a model"),
        ({"config.json": '{"model_type": "unet"}', "train.bin": "x", "val.bin": "x"}, "weights"),
        ({"config.json": '{"model_type": "unet"}', "pairs.safetensors": "not a header"}, "weights"),
        ({"adapter_config.json": '{"volts": 5}', "adapter_model.bin": "x"}, "config.json"),
    ],
)
def test_a_project_with_such_names_is_not_deleted(
    files: dict[str, str | None], missing: str, old: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name, text in files.items():
        write_raw(project / name, {}, b"") if text is None else (project / name).write_text(text)
    assert f"(it has no {missing})" in refused(project, old)


@pytest.mark.parametrize("name", ["train.bin", "best_model.pt", "data.h5", "weights.pth", "pairs.safetensors"])
def test_data_beside_a_checkpoint_is_not_deleted(name: str, out: Path, old: Path) -> None:
    (out / name).write_text("work")
    assert f"holds {name}, which does not belong to a checkpoint" in refused(out, old)


@pytest.mark.parametrize(
    "names", [["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], ["tf_model.h5"]]
)
def test_weights_of_other_libraries_are_of_a_checkpoint(names: list[str], out: Path, old: Path) -> None:
    (out / "model.safetensors").unlink()
    for name in names:
        (out / name).write_text("x")
    check_output(out, [old], True)


def test_an_adapter_may_be_replaced(old: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "README.md").write_text("")
    write_raw(folder / "adapter_model.safetensors", {}, b"")
    check_output(folder, [old], True)


def test_an_out_may_be_replaced_as_it_was_made(tiny: Tiny, tmp_path: Path) -> None:
    """What the manifest names is ours; what somebody has put beside it is not."""
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    run(case, out)
    run(case, out, overwrite=True, p_max=20.0)
    (out / "answers.jsonl").write_text("work")
    before = everything(out)
    with pytest.raises(OutputError, match=r"holds answers\.jsonl, which does not belong to a checkpoint"):
        run(case, out, overwrite=True)
    assert everything(out) == before


def test_what_appears_in_out_during_the_run_is_not_deleted(tiny: Tiny, tmp_path: Path) -> None:
    """Looked at again immediately before the swap; the work is kept."""
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, out)

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "drawing the page":
            (out / "thesis.tex").write_text("work")

    with pytest.raises(OutputError, match=r"holds thesis\.tex"):
        run(case, out, overwrite=True, p_max=20.0, on_progress=on_progress)
    assert (out / "thesis.tex").read_text() == "work"
    (out / "thesis.tex").unlink()
    run(case, out, overwrite=True, p_max=20.0, resume=True)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("kind", ["calibration", "hard link of it", "link to it"])
def test_an_out_with_an_input_in_it(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, out)
    (tmp_path / "mine.jsonl").write_bytes(case.task.read_bytes())
    task = out / "task.jsonl"
    if kind == "calibration":
        task.write_bytes(case.task.read_bytes())
    elif kind == "hard link of it":
        task.hardlink_to(tmp_path / "mine.jsonl")
    else:
        task.write_bytes(case.task.read_bytes())
        (tmp_path / "link.jsonl").symlink_to(task)
        task = tmp_path / "link.jsonl"
    with pytest.raises(OutputError, match=r"OUT .* overlaps the input"):
        run(case._replace(task=task), out, overwrite=True)
    assert (out / "task.jsonl").exists()


# --- mount points ---


@pytest.fixture
def bind(tmp_path: Path) -> Iterator[Callable[[Path, Path], None]]:
    """``bind(folder, place)``: the folder, mounted a second time."""
    places: list[Path] = []

    def mount(folder: Path, place: Path) -> None:
        place.mkdir(exist_ok=True)
        words = ["mount", "--bind", str(folder), str(place)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no folder can be mounted here")
        places.append(place)

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("sub", ["", "sub"])
def test_an_out_in_a_bind_mount_of_an_input(
    sub: str, old: Path, tmp_path: Path, bind: Callable[[Path, Path], None]
) -> None:
    (old / "sub").mkdir()
    bind(old / sub, tmp_path / "mounted")
    place = tmp_path / "mounted" / "out"
    with pytest.raises(OutputError, match=f"OUT {place} overlaps the input {old}"):
        check_output(place, [old], False)


def test_an_input_in_a_bind_mount_of_out(out: Path, tmp_path: Path, bind: Callable[[Path, Path], None]) -> None:
    bind(out, tmp_path / "mounted")
    with pytest.raises(OutputError, match="overlaps the input"):
        check_output(out, [tmp_path / "mounted"], True)


@pytest.mark.parametrize("place", ["out", "out/additional_chat_templates", "out.partial"])
def test_mount_points_are_never_deleted(
    place: str, out: Path, old: Path, tmp_path: Path, bind: Callable[[Path, Path], None]
) -> None:
    (theirs := tmp_path / "theirs").mkdir()
    (theirs / "thesis.tex").write_text("work")
    bind(theirs, tmp_path / place)
    with pytest.raises(OutputError, match="mount point"):
        check_output(out, [old], True, resume=True)
    assert (theirs / "thesis.tex").exists()


def test_overwrite_is_advised_only_where_it_would_do(out: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / "file.jsonl").write_text("{}")
    (tmp_path / "link").symlink_to(out)
    for name in ("notes", "file.jsonl", "link"):
        with pytest.raises(OutputError, match=r"exists already: choose another folder\.$"):
            check_output(tmp_path / name, [], overwrite=False)
    with pytest.raises(OutputError, match=r"choose another folder, or replace it with --overwrite\.$"):
        check_output(out, [], overwrite=False)
