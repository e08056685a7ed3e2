"""``hpa-merge verify`` as it is typed: what it prints, and its exit status."""

from collections.abc import Callable

import pytest
from conftest import Call, status

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
    assert printed.err == ""
    assert not verify(merged.out, "--old", merged.old, "--new", merged.new, "-q")
    assert capsys.readouterr() == ("", "")


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
