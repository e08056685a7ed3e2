"""The command: what a merge prints, its exit statuses, and where its options come from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cases import Call, status
from transformers.models.llama.modeling_llama import LlamaMLP

from hpa_merge.cli import main
from hpa_merge.config import HPAConfig

# --- wrong words ---


def test_missing_and_unknown_options_show_the_usage(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    for words, sentence in (
        ([], "Missing argument 'OLD'."),
        ([str(call.old), str(call.new)], "Missing option '--safety-calib'."),
        ([*call.arguments[:4], "-o", "out"], "Missing option '--task-calib'."),
        (call.arguments[:6], "Missing option '-o' / '--output'."),
        ([*call.arguments, "--selection", "best"], "'best' is not one of 'balanced', 'safety', 'shared'."),
        ([*call.arguments, "--p-maximum", "3"], "No such option '--p-maximum'"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert printed.err.startswith("Usage: hpa-merge [OPTIONS] OLD NEW\n")
        assert sentence in printed.err.splitlines()[-1]


@pytest.mark.parametrize("content", ["15: 3", "include: 5", "safety_calib: 5", "- p-max", "p-max: high", "p-max: [1"])
def test_a_yaml_file_of_the_wrong_kind(
    content: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    words = [*call.arguments, "--config", str(call.write("options.yaml", content))]
    if "safety_calib" in content:
        words.remove("--safety-calib")
        words.remove(str(call.safety))
    with pytest.raises(SystemExit) as end:
        main(words)
    printed = capsys.readouterr().err
    assert end.value.code == 2, printed
    assert printed.count("\n") == 1


# --- right inputs ---


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(printed: str) -> list[list[str]]:
    """The words of each line, without the lines of a table."""
    return [re.sub("[│┃|]", " ", line).split() for line in printed.splitlines()]


def config_of(out: Path) -> dict[str, object]:
    return json.loads((out / "hpa_report.json").read_text())["config"]


def test_a_merge_prints_its_summary_and_its_notes(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("llava")
    call.safety = call.calibration({"text": "i cannot help with that."})
    call.write("new/extra.bin", "pickle")
    assert status(call) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("LlavaForConditionalGeneration: restored columns")
    assert re.search(r"linears +21 adapted, 2 unchanged by tuning, 19 uncalibrated", printed.out)
    assert "Is out safe again? Not known: nobody measured whether attacks succeed.\n" in printed.out
    assert f"  hpa-merge eval {call.old} {call.new} {call.out} --safety-test UNSAFE.jsonl " in printed.out
    assert printed.out.splitlines()[-3:] == [
        "Then, to publish it:",
        f"  hpa-merge push {call.out} YOUR-NAME/out --private",
        f"{call.out} is complete.",
    ]
    assert printed.err == (
        "Note: 19 of the changed linears came from NEW, because no token of the safety set reached "
        "them: vision_tower.encoder.layers.0.mlp.fc1.weight, vision_tower.encoder.layers.0.mlp.fc2.weight, "
        "vision_tower.encoder.layers.0.self_attn.k_proj.weight, "
        "vision_tower.encoder.layers.0.self_attn.out_proj.weight and 15 more.\n"
        "Note: Not carried over from NEW: extra.bin.\n"
    )


def test_the_summary_is_whole_in_eighty_columns(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as rich takes it for a pipe
    call = make_call("llava")
    assert status(call) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert str(call.out) in printed
    assert "vision_tower" in printed
    assert "language_model" in printed
    assert "…" not in printed


def test_quiet_prints_nothing(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("gpt2")
    (call.new / "extra.bin").write_text("pickle")
    call.options = ("-q",)
    assert status(call) == 0
    assert capsys.readouterr() == ("", "")
    assert (call.out / "config.json").exists()


def test_a_dry_run_writes_nothing(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("qwen2_tied")
    before = files_of(call.folder)
    call.options = ("--dry-run", "--exclude", "layers.0.*q_proj")
    assert status(call) == 0
    printed = capsys.readouterr()
    assert ["model.layers.0", "0/3", "15.0%", "6", "0", "1"] in (rows := table(printed.out))
    assert ["model.layers.2", "2/3", "8.3%", "7", "0", "0"] in rows
    assert printed.out.rstrip().endswith("Nothing was written.")
    assert printed.err == ""
    assert files_of(call.folder) == before


def test_a_dry_run_refuses_what_a_merge_would(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.out.mkdir()
    call.options = ("--dry-run",)
    assert status(call) == 2
    assert capsys.readouterr() == (
        "",
        f"Error: OUT {call.out} exists already: choose another folder, or replace it with --overwrite.\n",
    )
    call.options = ("--dry-run", "--overwrite")
    assert status(call) == 0


def test_the_command_line_wins_over_the_yaml_file(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    lines = ["p-max: 30", "p_min: 10", "orthogonal: false", "include: c_fc", f"safety-calib: {call.safety}"]
    lines += [f"task_calib: {call.folder / 'nowhere'}", f"output: {call.out}", "selection: safety", "seed: 7"]
    words = ["--config", str(call.write("options.yaml", "\n".join(lines))), "--p-max", "15", "--seed", "0"]
    main([str(call.old), str(call.new), "--task-calib", str(call.task), *words])
    defaults = json.loads(json.dumps(vars(HPAConfig())))
    changed = {"p_min": 10.0, "orthogonal": False, "include": ["c_fc"], "selection": "safety"}
    assert config_of(call.out) == {**defaults, **changed}  # p_max and seed: given with the value of the default


def test_overwrite_replaces_out(make_call: Callable[..., Call]) -> None:
    call = make_call("gpt2")
    call.options = ("-q", "--p-max", "20")
    assert status(call) == 0
    call.write("out/vocab.txt", "of the first run")
    call.options = ("-q", "--overwrite", "--p-max", "25")
    assert status(call) == 0
    assert config_of(call.out)["p_max"] == 25.0
    assert not (call.out / "vocab.txt").exists()
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old", "out"]


# --- what ends a run ---


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("place", ["arithmetic", "forward"])
def test_an_interrupted_run_leaves_nothing(
    place: str, make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    if place == "arithmetic":
        monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(KeyboardInterrupt()))
    else:
        monkeypatch.setattr(LlamaMLP, "forward", raising(KeyboardInterrupt()))
    assert status(call) == 130
    assert capsys.readouterr() == ("", "Error: interrupted: the same command with --resume continues.\n")
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_mistake_of_ours(
    verbose: bool, make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(ZeroDivisionError("by zero")))
    call.options = ("-v",) if verbose else ()
    assert status(call) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert last == ("Error: ZeroDivisionError: by zero (a bug of hpa-merge or of a library; -v shows the traceback)")
    assert ("Traceback (most recent call last):" in trace) == verbose
    assert verbose or not trace
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old"]


def test_verbose_shows_where_an_input_was_refused(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.old = call.folder / "nowhere"
    call.options = ("--verbose",)
    assert status(call) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"Error: OLD {call.old} does not exist: give a folder in Hugging Face layout."


def test_control_characters_are_shown_escaped(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.old = call.folder / "a\x1b[2Jb\nc"
    assert status(call) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert r"a\x1b[2Jb\nc does not exist" in printed
