"""Calibration files, images, templates and tokenizers that mean harm: one sentence, little memory, no code run."""

import builtins
import contextlib
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import Call, assert_refused, assert_refused_cheaply
from measured import measured
from PIL import Image
from tiny_chats import NESTED

from hpa_merge.calibration import Encoder, process, read_samples
from hpa_merge.calibration.media.images import open_images
from hpa_merge.errors import CalibrationError, CheckpointError, HPAError
from hpa_merge.isolation import Limits

pytestmark = pytest.mark.gate

REMOVE = "change or remove it."


def refused(path: Path, *, mebibytes: int = 200) -> str:
    """The sentence of a calibration file; what it takes to come to it is bounded."""
    done = measured(read_samples, path, 8, seed=0)
    assert done.error is not None, done
    kind, sentence = done.error
    assert kind == "CalibrationError"
    assert done.cpu_seconds < 20
    assert done.peak < mebibytes * 2**20
    return sentence


def test_a_line_of_100_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "one"}\n{"text": "' + "x" * 10**8 + '"}\n')
    assert refused(path) == (
        f"{path}:2: the line is longer than 16777216 bytes: take it out, or write one sample a line."
    )


@pytest.mark.parametrize("first", [b"", b"\n", b"\xef\xbb\xbf"])
def test_a_file_of_nothing_but_zeros(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(first)
    os.truncate(path, 10**11)  # sparse
    assert refused(path) == f"{path} is text in UTF-16 or UTF-32, or no text: save it as UTF-8."


def test_an_array_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("[")
    os.truncate(path, 10**11)
    assert refused(path) == (f"{path} is text in UTF-16 or UTF-32, or no text: save it as UTF-8.")


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"messages": ['])
def test_deeply_nested_json(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(opening * 10**5)
    assert refused(path).endswith("this JSON is too large to be read: write shorter numbers and nest less deeply.")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    os.mkfifo(path)
    assert refused(path) == f"the calibration file {path} is a pipe or a device: give a file."
    assert refused(Path("/dev/zero")) == "the calibration file /dev/zero is a pipe or a device: give a file."


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/dev/stdin", "folder"])
def test_an_image_that_is_no_file(tmp_path: Path, target: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"image": target, "instruction": "what?", "response": "a cat."}))
    assert f"the image {target} is not a file" in refused(path)


# --- images -----------------------------------------------------------------------------------------------------------


def write_png(path: Path, width: int, height: int) -> None:
    """An image of one colour: small on disk whatever its size; its data ends after a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * min(height * (width + 1), 2**20))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ([(60_000, 60_000)], "has more than 89478485 pixels: use a smaller one."),
        ([(2**31 - 1, 2**31 - 1)], "has more than 89478485 pixels: use a smaller one."),
        ([(80_000, 2)], "cannot be read (it is more than 200 times as long as wide): "),
        ([(1, 300)], "cannot be read (it is more than 200 times as long as wide): "),
    ],
)
def test_an_image_out_of_all_proportion(
    sizes: list[tuple[int, int]],
    complaint: str,
    make_call: Callable[..., Call],
) -> None:
    call = make_call("llava")
    for number, size in enumerate(sizes):
        write_png(call.folder / f"{number}.png", *size)
    images = [f"{number}.png" for number in range(len(sizes))]
    call.safety = call.calibration({"images": images, "instruction": "what?", "response": "a cat."})
    assert_refused_cheaply(call, complaint)


def test_images_that_are_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    Image.new("RGB", (40, 40)).save(tmp_path / "i.png")
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"images": ["i.png"] * 4, "instruction": "what?", "response": "four."}))
    with pytest.raises(CalibrationError) as caught:
        open_images(read_samples(path, 1, seed=0).samples[0])
    assert str(caught.value) == f"{path}:1: its images have more than 5000 pixels together: use fewer or smaller ones."


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/i.png", "https://x.org/i.png", "s3://x"])
@pytest.mark.parametrize("key", ["image", "url", "path"])
def test_a_url_is_never_fetched(
    url: str,
    key: str,
    make_call: Callable[..., Call],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = make_call("llava")
    content = [{"type": "image", key: url}, {"type": "text", "text": "what?"}]
    call.safety = call.calibration({"messages": [{"role": "user", "content": content}]})
    forbid_network(monkeypatch)
    assert_refused(call, capsys, f"the image {url} is a URL, and URLs are never fetched")


# --- chat templates ---------------------------------------------------------------------------------------------------


DOUBLED = "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}"
"""A text that doubles."""


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does not come to an end"),
        ("{{ 10**(10**9) }}", "does not come to an end"),
        (NESTED + "{{ ns.a == ns.b }}", "does not come to an end within 1 seconds of computing"),
        (DOUBLED + "{{ ns.a }}", "it takes more than 0.5 GiB of memory"),
        ("{{ ((messages | string) * 2000) | wordwrap(1) | indent | urlize }}", "does not come to an end"),
        ("{{ 'x' * 10**10 }}", "it takes more than 0.5 GiB of memory"),
        ("{{ '%9999999999d' % 1 }}", "it takes more than 0.5 GiB of memory"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ 'x' * 3000000 }}",
            "and more than 2097152 are not encoded",
        ),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "is unsafe"),
        ("{{ messages.append(1) }}", "is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
    ],
)
def test_a_template(
    template: str,
    complaint: str,
    make_call: Callable[..., Call],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "SAMPLE", Limits(1.0, 600.0))
    monkeypatch.setattr(process, "MEMORY", 2**29)
    call = make_call()
    for folder in (call.old, call.new):
        (folder / "chat_template.jinja").write_text(template)
    assert_refused(call, capsys, complaint)


# --- tokenizers and processors ----------------------------------------------------------------------------------------

REMOTE: dict[str, Callable[[dict[str, Any]], object]] = {
    "tokenizer_config.json": lambda content: content.update(
        auto_map={"AutoTokenizer": ["evil.Evil", "evil.EvilFast"]}, tokenizer_class="Evil"
    ),
    "processor_config.json": lambda content: content.update(
        auto_map={"AutoProcessor": "evil.Evil"}, processor_class="Evil"
    ),
    "processor_config.json, its image processor": lambda content: (
        content.pop("processor_class"),
        content["image_processor"].update(
            auto_map={"AutoImageProcessor": "evil.Evil"}, image_processor_type="EvilProcessor"
        ),
    ),
}


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in ("llama", "llava") for name in REMOTE if model == "llava" or "processor" not in name],
)
def test_code_of_the_checkpoint_is_neither_run_nor_asked_about(
    name: str, model: str, make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = make_call(model)
    path = call.old / name.partition(",")[0]
    content = json.loads(path.read_text())
    REMOTE[name](content)
    path.write_text(json.dumps(content))
    # where no class is named, transformers takes the model's, and forgets the answer
    named = call.old / "tokenizer_config.json"
    named.write_text(json.dumps({**json.loads(named.read_text()), "processor_class": None}))
    (call.old / "evil.py").write_text(f"open({str(call.folder / 'pwned')!r}, 'w')\nclass Evil: pass\nEvilFast = Evil\n")
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked on the terminal"))
    forbid_network(monkeypatch)
    samples = read_samples(call.safety, 8, seed=0).samples
    with contextlib.suppress(HPAError):  # transformers may have a class of its own for it
        Encoder.from_checkpoint(call.old, samples).encode(samples[0], 128)
    assert not (call.folder / "pwned").exists()


def test_a_token_id_that_takes_gigabytes(make_call: Callable[..., Call]) -> None:
    call = make_call()
    path = call.old / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["a"] = 2**31
    path.write_text(json.dumps(content))
    samples = read_samples(call.safety, 8, seed=0).samples
    with pytest.raises(CheckpointError, match=r"\(tokenizer\.json has a token id over 10000000\)"):
        Encoder.from_checkpoint(call.old, samples)


def test_a_tokenizer_that_panics(make_call: Callable[..., Call], capfd: pytest.CaptureFixture[str]) -> None:
    call = make_call()
    path = call.old / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["special_tokens"] = {}
    path.write_text(json.dumps(content))
    path = call.calibration({"text": "one"})
    samples = read_samples(path, 8, seed=0).samples
    with pytest.raises(HPAError) as caught:
        Encoder.from_checkpoint(call.old, samples).encode(samples[0], 8)
    assert "\n" not in str(caught.value)
    capfd.readouterr()  # the library's own lines


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(socket.socket):  # between processes of this machine alone
        def __init__(self, family: int = -1, *arguments: int, **named: Any) -> None:
            assert family == socket.AF_UNIX or named.get("fileno") is not None, "a socket was opened"
            super().__init__(family, *arguments, **named)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Local)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
