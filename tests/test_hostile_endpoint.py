"""Servers, keys and addresses that mean harm or are broken: one sentence, a bounded body, and no waiting."""

import json
import signal
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from endpoint_stub import Raw, Stub, ask, asked, serving
from PIL import Image

from hpa_merge.calibration.media import sending
from hpa_merge.errors import CalibrationError, EvaluationError
from hpa_merge.evaluation.endpoint import Endpoint
from hpa_merge.inputs.secrets import KEY
from hpa_merge.isolation import Limits


def completion(content: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/json", *lines, "", ""]).encode()


def without_end(start: bytes, part: bytes) -> Raw:
    """A response that goes on for as long as somebody reads it."""

    def write(out: BinaryIO) -> None:
        out.write(start)
        while True:
            out.write(part)

    return write


def slowly(start: bytes, over: threading.Event) -> Raw:
    """A response of which a byte comes every twentieth of a second, until ``over`` is set."""

    def write(out: BinaryIO) -> None:
        out.write(start)
        while not over.wait(0.05):
            out.write(b"a")
            out.flush()

    return write


CHUNK = b"%x\r\n%b\r\n" % (2**16, b" " * 2**16)
"""A part of a body in chunks."""

ENDLESS = {
    "a body of 10 GB": without_end(head("Content-Length: 10000000000"), b" " * 2**16),
    "chunks": without_end(head("Transfer-Encoding: chunked"), CHUNK),
    "until the connection closes": without_end(b"HTTP/1.0 200 OK\r\n\r\n", b"[" * 2**16),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_reply_without_end(name: str, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: ENDLESS[name]
    with pytest.raises(EvaluationError, match=r"cannot be read \(it is longer than 16777216 bytes\): fix the server"):
        endpoint().answer([ask("a")])
    assert len(stub.bodies) == 1  # no second try of what has an answer


@pytest.mark.parametrize("line", [b"X-More: yes\r\n", b"a"])
def test_headers_without_end(line: bytes, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: without_end(b"HTTP/1.1 200 OK\r\n", line)
    with pytest.raises(EvaluationError, match=r"cannot be reached \(.*; tried 2 times\)"):
        endpoint(retries=1).answer([ask("a")])


@pytest.mark.parametrize(
    "start", [head("Content-Length: 1000000"), head("Transfer-Encoding: chunked"), b"HTTP/1.1 200 OK\r\nX-Slow: ", b"H"]
)
def test_the_timeout_is_for_the_whole_answer(start: bytes, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    over = threading.Event()
    stub.rule = lambda body: slowly(start, over)
    with pytest.raises(EvaluationError, match=r"\(no whole answer within 0\.5 seconds; tried 2 times\): .*--timeout"):
        endpoint(timeout=0.5).answer([ask("a")])
    over.set()


def test_a_connection_that_was_lost_once_is_tried_again(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    over = threading.Event()
    waiting: list[Raw] = [slowly(b"", over), lambda out: None]
    stub.rule = lambda body: waiting.pop(0) if waiting else "at last"
    assert endpoint(timeout=1).answer([ask("a")]) == ["at last"]
    over.set()


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd, gzip"])
@pytest.mark.parametrize("code", [200, 404])
def test_what_is_compressed_is_not_read(coding: str, code: int, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    bomb = zlib.compress(bytes(2**24), wbits=31)
    stub.rule = lambda body: (code, bomb, {"content-encoding": coding})
    words = r"compresses its answers \(" if code == 200 else r"answers 404 .* \(\(compressed\)\)"
    with pytest.raises(EvaluationError, match=words):
        endpoint().answer([ask("a")])
    assert stub.headers[0]["accept-encoding"] == "identity"
    stub.rule = lambda body: (200, completion("as it is"), {"content-encoding": "Identity"})
    assert endpoint().answer([ask("a")]) == ["as it is"]


@pytest.mark.parametrize(
    "wanted", ["nan", "inf", "-5", "1e9", "Wed, 21 Oct 2099 07:28:00 GMT", "7 or so", "", "\u0664"]
)
def test_a_wait_that_is_no_number_of_seconds(wanted: str, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    waiting = [(503, b"", {"retry-after": wanted.encode().decode("latin-1")})]
    stub.rule = lambda body: waiting.pop(0) if waiting else "fine"
    assert endpoint().answer([ask("a")]) == ["fine"]
    (pause,) = stub.pauses
    assert 0.5 <= pause <= 1  # as if it had said nothing


def test_no_wait_is_longer_than_half_a_minute(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    waiting = [(429, b"", {"retry-after": "999999999"})]
    stub.rule = lambda body: waiting.pop(0) if waiting else "fine"
    assert endpoint().answer([ask("a")]) == ["fine"]
    assert stub.pauses == [30]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirection_is_not_followed(
    code: int, stub: Stub, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sesame")
    with serving() as other:
        stub.rule = lambda body: (code, b"", {"location": f"{other.url}/chat/completions"})
        with pytest.raises(EvaluationError, match=r"redirects to another address .* give the address that answers"):
            endpoint().answer([ask("a")])
        assert not other.headers


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"choices": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested more than 100 deep"),
        (b'{"choices": [{"message": {"content": ' + b'{"a": ' * 500 + b"1" + b"}" * 500 + b"}}]}", "nested more than"),
        (b'{"choices": [{"message": {"content": "half \\ud83d"}}]}', r"half a pair of surrogates, \\ud83d"),
        (b'{"choices": [{"message": {"content": "\\udE00\\ud83d"}}]}', r"half a pair of surrogates"),
        (b'{"usage": ' + b"9" * 5000 + b', "choices": []}', "digits"),
        (b"[" + b"{}," * 5 * 10**6 + b"{}]", "bytes of memory"),
    ],
)
def test_json_that_means_harm(content: bytes, reason: str, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (200, content)
    with pytest.raises(EvaluationError, match=rf"answers t\.jsonl:1 with what cannot be read \(.*{reason}"):
        endpoint().answer([ask("a")])


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b'{"choices": {"0": 1}}', b'{"choices": [[]]}', b"null", b""])
def test_no_completion_at_all(content: bytes, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (200, content)
    with pytest.raises(EvaluationError, match="something else than a chat completion"):
        endpoint().answer([ask("a")])


def test_an_answer_that_is_longer_than_its_tokens_can_be(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: asked(body)
    assert endpoint(max_new_tokens=2).answer([ask("a" * 512)]) == ["a" * 512]
    with pytest.raises(EvaluationError, match=r"with 513 characters, and 2 tokens have 512 at most"):
        endpoint(max_new_tokens=2).answer([ask("a" * 513)])


def test_a_pair_of_surrogates_is_a_character(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (200, completion("a smile \U0001f600 and \\ud83d as text"))
    assert endpoint().answer([ask("a")]) == ["a smile \U0001f600 and \\ud83d as text"]


@pytest.mark.parametrize("key", ["ключ", "two words", "line\nend", "se\x7fsame", "caf\xe9"])
def test_a_key_that_cannot_be_sent(
    key: str, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(EvaluationError, match="OPENAI_API_KEY has a character that no key has") as caught:
        endpoint()
    assert key not in str(caught.value)


def test_a_server_that_repeats_the_key(
    stub: Stub, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sesame\n")  # as a file of secrets ends
    stub.rule = lambda body: (401, b"wrong: " + stub.headers[-1]["authorization"].encode())
    with pytest.raises(EvaluationError, match=r"\(wrong: Bearer \*\*\*\)"):
        endpoint().answer([ask("a")])


REPEATED = {
    "the password": b"no such password=hunter2 %21\xc3\xa9 here",
    "the password as it was written": b"no: hunter2%20%2521%C3%A9",
    "user and password": b"alice:hunter2 %21\xc3\xa9 is wrong",
    "the header": b"Authorization Basic YWxpY2U6aHVudGVyMiAlMjHDqQ==",
    "the code alone": b"got YWxpY2U6aHVudGVyMiAlMjHDqQ",
    "the header in small letters": b"authorization: basic YWxpY2U6aHVudGVyMiAlMjHDqQ==",
    "another one's header": b"Basic c29tZWJvZHk6ZWxzZQ==",
    "JSON": b'{"detail": "hunter2 %21\\u00e9"}',
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_server_that_repeats_user_and_password(name: str, stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (401, REPEATED[name])
    with pytest.raises(EvaluationError, match=r"\*\*\*") as caught:
        endpoint(stub.url.replace("://", "://alice:hunter2%20%2521%C3%A9@")).answer([ask("a")])
    assert not any(piece in str(caught.value) for piece in ("hunter2", "YWxp", "c29t"))


def test_a_server_that_repeats_a_user_without_password(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    stub.rule = lambda body: (401, b"sesame: unknown; " + stub.headers[-1]["authorization"][6:].encode())
    with pytest.raises(EvaluationError, match=r"\(\*\*\* unknown; \*\*\*\)"):
        endpoint(stub.url.replace("://", "://sesame@")).answer([ask("a")])


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://host:port/v1", "http://a..b/v1", "http://host:99999/v1", "ftp://host/v1", "http://\0/"],
)
def test_an_address_that_is_none(url: str, endpoint: Callable[..., Endpoint]) -> None:
    with pytest.raises(EvaluationError, match=r"cannot be asked|cannot be reached|is not an address"):
        endpoint(url=url, retries=0).answer([ask("a")])


@pytest.mark.parametrize(("name", "value"), [("HTTP_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/nowhere/at.all")])
def test_an_environment_that_is_broken(
    name: str, value: str, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EvaluationError, match="cannot be asked"):
        endpoint()


def test_an_interruption_ends_a_request_at_once(stub: Stub, endpoint: Callable[..., Endpoint]) -> None:
    over = threading.Event()

    def rule(body: dict[str, Any]) -> Raw:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        return slowly(head(), over)

    stub.rule = rule
    client = endpoint(timeout=600)
    with pytest.raises(KeyboardInterrupt):
        client.answer([ask("a")])
    client.close()  # does not wait for what was interrupted
    over.set()


def test_images_are_opened_in_a_child(
    stub: Stub, endpoint: Callable[..., Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by Pillow here: what takes too much there is a sentence, and another sample is not hindered by it."""
    Image.new("RGB", (6000, 6000)).save(tmp_path / "large.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "small.png")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened here"))
    client = endpoint()
    assert client.answer([ask("a", tmp_path / "small.png")]) == ["fine"]
    client.close()
    monkeypatch.setattr(sending, "MEMORY", 2**24)
    with pytest.raises(CalibrationError, match=r"its images take too much \(it takes more than .* of memory"):
        endpoint().answer([ask("a", tmp_path / "large.png")])
    monkeypatch.setattr(sending, "MEMORY", 2**32)
    monkeypatch.setattr(sending, "SAMPLE", Limits(0.01, 60.0))
    with pytest.raises(CalibrationError, match=r"its images take too much \(it does not come to an end within 0.01"):
        endpoint().answer([ask("a", tmp_path / "large.png")])
