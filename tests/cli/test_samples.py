"""``hpa-merge samples`` and ``--dry-run``: what is shown of a file as the model gets it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Call, TinyCase, assert_refused

from hpa_merge.cli import main

Tiny = Callable[..., TinyCase]


EXPECTED = r"""task set       4 of 5 samples, 291 tokens, 4 turns, 1 image, 2 with an answer, 1
               truncated, 1 dropped (does not fit into 150 tokens) from s.jsonl
chat template  the processor's chat template

The task set as the model gets it
     1 of the shape: user with 1 image, assistant
     1 of the shape: user, assistant
     1 of the shape: text
     1 of the shape: token ids

s.jsonl:1: 37 tokens
 7  text    <bos><|im_start|>user\n
 4  image   a.png, 40x28 pixels
21  text    \n
            Hi?\x1b[2J<|im_end|>\n
            <|im_start|>assistant\n
 3  answer  No.
 2  text    <|im_end|>\n

s.jsonl:2: 150 tokens, without 381 that were cut
67  text    <bos><|im_start|>user\n
            word word word word word word word word word word word word
    cut     381 characters
72  text    ord word word word word word word word word word word word
            <|im_end|>\n
            <|im_start|>assistant\n
 9  answer  I cannot.
 2  text    <|im_end|>\n

s.jsonl:3: 101 tokens
101  text  <bos>xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx

s.jsonl:5: 3 tokens
3  ids  1 20 21
"""
"""Of 80 columns, without the blanks at their ends."""


def shown(*words: object) -> int | str | None:
    try:
        main(["samples", *map(str, words)])
    except SystemExit as end:
        return end.code
    return 0


def lines(folder: Path, *records: object) -> Path:
    path = folder / "s.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def unpadded(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_the_whole_output(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny("llava")
    (tmp_path / "a.png").write_bytes((case.safety.parent / "images" / "safety-0.png").read_bytes())
    lines(
        tmp_path,
        {
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>\nHi?\x1b[2J"}, {"from": "gpt", "value": "No."}],
        },
        {"instruction": "word " * 100, "response": "I cannot."},
        {"text": "<bos>" + "x" * 100},
        {"instruction": "Hi?", "response": "x" * 200},
        {"input_ids": [1, 20, 21]},
    )
    monkeypatch.chdir(tmp_path)
    assert shown("s.jsonl", "--model", case.new, "--max-length", 150, "--n", 4) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines())) <= 80
    assert unpadded(printed.out) == EXPECTED


def test_long_texts_are_shortened_in_the_middle(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("llama").copied_to(tmp_path)
    fields = json.loads((case.old / "config.json").read_text())
    (case.old / "config.json").write_text(json.dumps(fields | {"max_position_embeddings": 2048}))
    file = lines(tmp_path, {"instruction": "a" * 400 + "b" * 400, "response": "c" * 700})
    assert shown(file, "--model", case.old, "--purpose", "safety") == 0
    printed = capsys.readouterr().out
    assert [printed.count(letter * 20) > 5 for letter in "abc"] == [True] * 3
    assert printed.count("characters…]") == 2
    assert printed.count("c") < 680


def test_a_template_and_its_arguments(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ strftime_now('%A') }} {{ mood }}: {% for m in messages %}{{ m.content }}/{% endfor %}")
    file = lines(tmp_path, {"instruction": "Hi?", "response": "No."})
    words = ["--chat-template", template, "--template-arg", 'mood="good"', "--template-date", "2026-11-28"]
    assert shown(file, "--model", tiny("llama").old, *words) == 0
    assert "Saturday good: Hi?/" in capsys.readouterr().out


def test_a_dry_run_shows_the_first_samples(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("gpt2")
    call.options = ("--dry-run",)
    main(call.arguments)
    printed = capsys.readouterr().out
    for purpose, file in (("safety", call.safety), ("task", call.task)):
        assert f"The {purpose} set as the model gets it" in printed
        assert f"{file}:1:" in "".join(printed.split())  # a long path is wrapped
    assert "answer" in printed
    assert not call.out.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing.jsonl", "--model", "OLD"], "the calibration file nothing.jsonl does not exist: check the path."),
        (["FILE", "--model", "nowhere"], "MODEL nowhere does not exist"),
        (
            ["FILE", "--model", "OLD", "--chat-template", "rag"],
            "chat_template is 'rag', which is no file, and the check",
        ),
        (
            ["FILE", "--model", "OLD", "--chat-template", "t.jinja"],
            "chat_template t.jinja cannot be read (No such file",
        ),
        (
            ["FILE", "--model", "OLD", "--template-arg", "mood=1"],
            "template_arg gives mood, and the checkpoint's chat t",
        ),
        (
            ["FILE", "--model", "OLD", "--template-date", "today"],
            "template_date is 'today': it has to be a day as 2024",
        ),
        (["FILE", "--model", "OLD", "--max-length", "0"], "max_length is 0: it has to be at least 1."),
        (["FILE", "--model", "OLD", "--max-length", "3"], "none of the 6 task samples fits into 3 tokens"),
        (["FILE", "--model", "OLD", "--max-length", "3", "--purpose", "safety"], "answer does not fit into 3 tokens"),
    ],
)
def test_bad_input(words: list[str], complaint: str, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    case = tiny("llama")
    places = {"FILE": str(case.task), "OLD": str(case.old)}
    assert shown(*(places.get(word, word) for word in words)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1
    assert complaint in printed


def test_a_merge_refuses_a_template_too(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("llama")
    call.options = ("--template-arg", "mood=1")
    assert_refused(call, capsys, "template_arg gives mood, and the checkpoint's chat template does not read it")
