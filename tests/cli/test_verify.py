"""``hpa-merge verify`` as it is typed: what it prints, and its exit status."""

import json
from collections.abc import Callable
from hashlib import sha256

import pytest
from cases import REPORT, Call, status

from hpa_merge.cli import main


def verify(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main(["verify", *map(str, words)]))
    return end.value.code


@pytest.fixture
def merged(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> Call:
    call = make_call("gpt2")
    assert status(call) == 0
    capsys.readouterr()
    return call


def test_a_whole_folder(merged: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert not verify(merged.out)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{merged.out} is as its merge wrote it: ")
    assert printed.err == (
        "Note: README.md may be edited, and was not checked.\n"
        "Note: The report was not compared with OLD and NEW: give both.\n"
    )
    assert not verify(merged.out, "--old", merged.old, "--new", merged.new, "-q")
    assert capsys.readouterr() == ("", "")


def test_the_merge_run_again(merged: Call, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--old", merged.old, "--new", merged.new, "--safety-calib", merged.safety, "--task-calib", merged.task]
    assert not verify(merged.out, *words)
    notes = capsys.readouterr().err
    assert "Note: The options are those that the report names: hpa.\n" in notes
    assert f" of {merged.safety}, SHA-256 {sha256(merged.safety.read_bytes()).hexdigest()}.\n" in notes
    content = json.loads((merged.out / REPORT).read_text())
    content["linears"][0]["safety_tokens"] += 1
    (merged.out / REPORT).write_text(json.dumps(content))
    assert not verify(merged.out, *words[:4])
    assert verify(merged.out, *words) == 2
    assert ": safety_tokens is " in capsys.readouterr().err


def test_half_of_the_calibration_files(merged: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(merged.out, "--old", merged.old, "--new", merged.new, "--task-calib", merged.task) == 2
    assert capsys.readouterr().err == (
        f"Error: with the options of the report of {merged.out}, safety_calib is missing: the method hpa looks "
        "at safety samples, so give a file.\n"
    )
    assert verify(merged.out, "--safety-calib", merged.safety) == 2
    assert capsys.readouterr().err == "Error: safety_calib is given without OLD and NEW: give --old and --new too.\n"


def test_a_flipped_bit(merged: Call, capsys: pytest.CaptureFixture[str]) -> None:
    shard = next(merged.out.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    assert verify(merged.out) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"Error: {shard.name} is not the file that the merge wrote: SHA-256 ")


def test_one_of_the_inputs_is_not_enough(merged: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(merged.out, "--old", merged.old) == 2
    assert capsys.readouterr().err == "Error: NEW is missing: give both --old and --new, or neither.\n"
