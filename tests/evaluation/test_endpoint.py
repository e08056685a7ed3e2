"""Answers of a server, held against a stub that speaks OpenAI's chat protocol."""

import base64
import io
import json
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_stub import Stub, ask, asked
from evaluation_cases import jsonl, lines, status
from media import picture, shown
from PIL import Image

import hpa_merge
from hpa_merge.errors import CalibrationError, EvaluationError
from hpa_merge.evaluation.endpoint import Endpoint
from hpa_merge.inputs.secrets import KEY
from hpa_merge.records import Media, Sample, Turn


def test_the_request_and_the_answer(
    stub: Stub, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    stub.rule = lambda body: " Well. "
    turns = (Turn("system", ("Be brief.",)), Turn("user", ("a", "b")), Turn("assistant", ("c",)), Turn("user", ("d",)))
    assert endpoint(max_new_tokens=17).answer([Sample("t.jsonl:1", turns=turns)]) == ["Well."]
    assert stub.bodies == [
        {
            "model": "served",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "a\nb"},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d"},
            ],
            "max_tokens": 17,
            "temperature": 0,
            "seed": 0,
        }
    ]
    assert "authorization" not in stub.headers[0]
    monkeypatch.setenv(KEY, "sesame")
    endpoint(url=stub.url + "/").answer([ask("a")])
    assert stub.headers[1]["authorization"] == "Bearer sesame"


def test_tools_and_their_calls_go_as_the_protocol_has_them(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    call = {"type": "function", "id": "c1", "function": {"name": "lock", "arguments": {"open": True}}}
    offer = {"type": "function", "function": {"name": "lock", "parameters": {}}}
    turns = (
        Turn("user", ("Open it.",)),
        Turn("assistant", (), tool_calls=(call,), reasoning="A lock."),
        Turn("tool", ("shut",), tool_call_id="c1"),
    )
    endpoint().answer([Sample("t.jsonl:1", turns=turns, tools=(offer,))])
    assert stub.bodies[0]["tools"] == [offer]
    said = stub.bodies[0]["messages"][1]
    assert said["tool_calls"] == [{**call, "function": {"name": "lock", "arguments": '{"open": true}'}}]
    assert said["reasoning_content"] == "A lock."
    assert stub.bodies[0]["messages"][2] == {"role": "tool", "content": "shut", "tool_call_id": "c1"}


def test_images_go_as_they_are_seen_here(stub: Stub, endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (6, 4), (250, 10, 20)).save(tmp_path / "a.jpg", exif=turned)
    Image.new("L", (3, 5), 90).save(tmp_path / "b.png")
    sample = Sample(
        "t:1", turns=(Turn("user", shown(tmp_path / "a.jpg", "What?", tmp_path / "b.png")), Turn("user", ("x",)))
    )
    endpoint().answer([sample])
    first, text, second = stub.bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert stub.bodies[0]["messages"][1]["content"] == "x"
    for part, size in ((first, (4, 6)), (second, (3, 5))):
        assert part["type"] == "image_url"
        head, _, content = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", size)


def test_sounds_go_as_wav(stub: Stub, endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    pytest.importorskip("av")
    from recordings import sound, tone

    left, right = tone(440, 0.25, 16000), tone(700, 0.25, 16000)
    content = Media("audio", sound("flac", left, right))
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    endpoint().answer([Sample("t:1", turns=(Turn("user", (content, "What?", picture(tmp_path / "a.png"))),))])
    first, text, second = stub.bodies[0]["messages"][0]["content"]
    assert (first["type"], first["input_audio"]["format"]) == ("input_audio", "wav")
    assert text == {"type": "text", "text": "What?"}
    assert second["type"] == "image_url"
    with wave.open(io.BytesIO(base64.b64decode(first["input_audio"]["data"]))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16000, 4000)
        samples = np.frombuffer(file.readframes(4000), "<i2") / 32768
    assert np.abs(samples - (left + right) / 2).max() < 3 / 32768


def test_videos_are_not_sent(endpoint: Callable[..., Endpoint]) -> None:
    with pytest.raises(CalibrationError) as caught:
        endpoint().answer([Sample("t:1", turns=(Turn("user", (Media("video", b""), "What?")),))])
    assert str(caught.value) == (
        "t:1 has videos, for which OpenAI's protocol has no place: ask the checkpoint without --endpoint, or give "
        "frames of them as images."
    )


def test_answers_come_in_the_order_of_the_prompts(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    gate = threading.Barrier(4, timeout=20)  # four have to be under way at once

    def rule(body: dict[str, Any]) -> str:
        gate.wait()
        return asked(body).upper()

    stub.rule = rule
    words = [f"word{number}" for number in range(12)]
    assert endpoint(concurrency=4).answer([ask(word) for word in words]) == [word.upper() for word in words]
    assert stub.busiest == 4


def test_a_server_that_is_busy_is_asked_again(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    waiting = [(503, b"loading"), (429, b"slow down", {"retry-after": "7"}), (500, b"")]
    stub.rule = lambda body: waiting.pop(0) if waiting else "at last"
    assert endpoint().answer([ask("a")]) == ["at last"]
    first, second, third = stub.pauses
    assert 0.5 <= first <= 1
    assert second == 7  # what the server asks for
    assert 2 <= third <= 4
    stub.rule = lambda body: (503, b"still\nloading")
    with pytest.raises(EvaluationError, match=r"answers 503 for t\.jsonl:1 and the model served \(still loading\)"):
        endpoint(retries=2).answer([ask("a")])
    assert len(stub.bodies) == 4 + 3


def test_a_request_that_is_wrong_is_not_repeated(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (404, b'{"error": {"message": "The model served does not exist."}}')
    with pytest.raises(EvaluationError, match=r"answers 404 for t\.jsonl:1 .*The model served does not exist"):
        endpoint().answer([ask("a")])
    assert len(stub.bodies) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"text": "a"}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
    ],
)
def test_something_else_than_a_completion(stub: Stub, endpoint: Callable[..., Endpoint], content: bytes) -> None:
    stub.rule = lambda body: (200, content)
    with pytest.raises(EvaluationError, match=r"something else than a chat completion .* before /chat/completions"):
        endpoint().answer([ask("a")])


def test_an_answer_that_the_server_calls_a_refusal_or_leaves_empty(
    stub: Stub, endpoint: Callable[..., Endpoint]
) -> None:
    for message, answer in (({"content": None, "refusal": "I can't help."}, "I can't help."), ({"content": None}, "")):
        stub.rule = lambda body, message=message: (200, json.dumps({"choices": [{"message": message}]}).encode())
        assert endpoint().answer([ask("a")]) == [answer]


def test_a_server_that_is_not_there_or_too_slow(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    with pytest.raises(EvaluationError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached .*tried 3 times"):
        endpoint(url="http://127.0.0.1:9/v1", retries=2).answer([ask("a")])
    assert len(stub.pauses) == 2
    over = threading.Event()
    stub.rule = lambda body: "late" if over.wait(20) else "never"
    with pytest.raises(EvaluationError, match=r"cannot be reached \(.*tried 1 times\): .* raise --timeout"):
        endpoint(timeout=0.2, retries=0).answer([ask("a")])
    over.set()


def test_a_prompt_whose_image_cannot_be_read(stub: Stub, endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match="cannot be read"):
        endpoint().answer([ask("fine"), ask(tmp_path / "a.png")])


def test_the_command_asks_the_server(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.rule = lambda body: "I cannot help with that." if body["model"] == "aligned" else asked(body)
    safety = jsonl(tmp_path / "s.jsonl", {"prompt": "bad"}, {"prompt": "worse"})
    task = jsonl(tmp_path / "t.jsonl", {"question": "echo", "answer": "echo"})
    tests = ["--safety-test", safety, "--task-test", f"echo={task}", "--endpoint", stub.url]
    outputs = ["--json", tmp_path / "r.json", "--answers", tmp_path / "answers"]
    assert status("eval", "aligned", "org/tuned", *tests, *outputs) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["attack", "success", "on", "s", "↓", "0.0", "(0.0–65.8)", "100.0", "(34.2–100.0)"] in table
    assert ["echo", "(exact)", "↑", "0.0", "(0.0–79.3)", "100.0", "(20.7–100.0)"] in table
    assert [line["answer"] for line in lines(tmp_path / "answers/tuned/safety-s.jsonl")] == ["bad", "worse"]
    assert (
        status("calib", "aligned", "--prompts", safety, "-o", tmp_path / "o.jsonl", "--n", "2", "--endpoint", stub.url)
        == 0
    )
    assert {line["messages"][1]["content"] for line in lines(tmp_path / "o.jsonl")} == {"I cannot help with that."}


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "No.", "reasoning_content": "Hm."}, "<think>Hm.</think>No."),
        ({"content": "No.", "reasoning": "Hm."}, "<think>Hm.</think>No."),
        ({"content": None, "reasoning_content": "Hm."}, "<think>Hm."),
        ({"content": "No.", "reasoning_content": None}, "No."),
        ({"content": "No.", "reasoning": {"effort": "low"}}, "No."),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "No."},
                ]
            },
            "<think>Hm.</think>No.",
        ),
    ],
)
def test_thoughts_that_the_server_keeps_apart(
    message: dict[str, Any], answer: str, stub: Stub, endpoint: Callable[..., Endpoint]
) -> None:
    stub.rule = lambda body: (200, json.dumps({"choices": [{"message": message}]}).encode())
    assert endpoint().answer([ask("a")]) == [answer]


def test_progress_counts_the_prompts_once_and_names_every_step(stub: Stub, tmp_path: Path) -> None:
    """First all answers, then what is judged: an estimate of the time left does not count the quick half."""
    safety = jsonl(tmp_path / "s.jsonl", {"prompt": "bad"}, {"prompt": "worse"})
    steps: list[tuple[str, int, int]] = []
    hpa_merge.evaluate(
        ["aligned", "org/tuned"],
        safety_tests={"s": safety},
        benign_tests={"h": jsonl(tmp_path / "h.jsonl", {"prompt": "good"})},
        endpoint=stub.url,
        on_progress=lambda *step: steps.append(step),
    )
    assert {total for _, _, total in steps} == {6}
    judging = next(n for n, (what, _, _) in enumerate(steps) if what == "loading the judge")
    for half in (steps[:judging], steps[judging:]):
        assert [done for _, done, _ in half] == sorted(done for _, done, _ in half)
        assert (half[0][1], half[-1][1]) == (0, 6)
    assert all(what and not what.endswith(": ") for what, _, _ in steps)
