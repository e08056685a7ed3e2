"""Keys and passwords: in no message, no traceback, no file and no report."""

import json
from pathlib import Path

import pytest
from endpoint_stub import Stub
from evaluation_cases import jsonl, status
from huggingface_hub import constants
from measured import measured

from hpa_merge.cli import main
from hpa_merge.errors import EvaluationError, HPAError
from hpa_merge.evaluation.endpoint import Endpoint
from hpa_merge.inputs.hub import locate
from hpa_merge.inputs.secrets import KEY, credentials, read_address, read_key, recorded, shown, without_secrets

PASSWORD = "Sesame"
"""Of which no test may see a piece."""


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://host.example/v1/", "https://host.example/v1/"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        (f"http://user:{PASSWORD}@host/v1", "http://host/v1"),
        (f"http://{PASSWORD}@host:80", "http://host:80"),
        (f"http://user:{PASSWORD}:@{PASSWORD}@host/v1", "http://host/v1"),
        (f"https://host/v1?sig={PASSWORD}&x=1", "https://host/v1"),
        (f"https://host?token={PASSWORD}", "https://host"),
        (f"https://host/v1#{PASSWORD}", "https://host/v1"),
        (f"user:{PASSWORD}@host/v1", "host/v1"),
        # a password with a sign that ends an authority: what it is cannot be told
        (f"http://user:{PASSWORD}/x@host/v1", "http://***"),
        (f"http://user:{PASSWORD}#x@host", "http://***"),
        (f"http://user:12?{PASSWORD}@host", "http://***"),
        (f"http://user:12/{PASSWORD}@host", "http://***"),
        (f"http://user:{PASSWORD} x@host\n/v1", "http://***"),
    ],
)
def test_what_is_shown_of_an_address(address: str, told: str) -> None:
    assert shown(address) == told
    if "://" in address:
        assert PASSWORD not in " ".join(recorded(["--endpoint", address, f"--endpoint={address}"]))
        assert PASSWORD not in without_secrets(f"the server at {address.replace(' ', '')} says no")


def test_user_and_password_go_to_the_server(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    from endpoint_stub import ask

    monkeypatch.delenv(KEY, raising=False)
    server = Endpoint(stub.url.replace("://", f"://user:{PASSWORD}%21@"), "served")
    assert server.answer([ask("a")]) == ["fine"]
    server.close()
    assert stub.headers[0]["authorization"] == "Basic dXNlcjpTZXNhbWUh"  # user:Sesame!
    assert credentials("http://localhost:8000/v1") is None


@pytest.mark.parametrize("key", ["sesame\n", "\r\n sesame ", "sesame"])
def test_white_space_around_a_key_is_not_of_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    assert read_key() == "sesame"


@pytest.mark.parametrize("key", [f"{PASSWORD}\nX-Evil: 1", f"{PASSWORD} two", f"{PASSWORD}ключ", f"\x01{PASSWORD}"])
def test_what_no_key_is(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with pytest.raises(EvaluationError, match="has a character that no key has") as caught:
        Endpoint("http://localhost:9/v1", "served")
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", [f"http://host/v1?key={PASSWORD}", f"http://host/v1#{PASSWORD}", "http://?x", "x"])
def test_what_no_endpoint_is(address: str) -> None:
    with pytest.raises(EvaluationError, match="the endpoint") as caught:
        read_address(address)
    assert PASSWORD not in str(caught.value)


@pytest.fixture(name="tests")
def test_files(tmp_path: Path) -> list[str | Path]:
    return ["--safety-test", jsonl(tmp_path / "s.jsonl", {"prompt": "bad"})]


@pytest.fixture(name="nothing")
def no_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address with a password behind which nothing is, and no pauses between the tries."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("hpa_merge.evaluation.endpoint._pause", lambda tried, wanted: 0.0)
    return f"http://user:{PASSWORD}@127.0.0.1:9/v1"


@pytest.mark.parametrize("flags", [[], ["-v"]])
@pytest.mark.parametrize(
    "words",
    [
        ["eval", "m", "--endpoint", "ADDRESS"],
        ["eval", "m", "--endpoint", "ADDRESS?x"],
        ["eval", "m", "--endpoint", f"http://u:{PASSWORD}/@127.0.0.1:9"],
        ["eval", "ADDRESS"],
        ["eval", "m", "--endpoint", "ADDRESS", "--timeout", "ADDRESS"],
        ["inspect", "ADDRESS"],
        ["verify", "m", "ADDRESS"],
    ],
)
def test_no_command_says_a_password(
    words: list[str], flags: list[str], tests: list[str | Path], nothing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    told = [word.replace("ADDRESS", nothing) for word in words]
    assert status(*told, *(tests if words[0] == "eval" else []), *flags) == 2
    out, err = capfd.readouterr()
    assert err
    assert PASSWORD not in out + err


@pytest.mark.parametrize("flags", [[], ["-v"]])
@pytest.mark.parametrize("key", [PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\nX: 1", f"{PASSWORD}é"])
def test_no_command_says_a_key(
    key: str,
    flags: list[str],
    stub: Stub,
    tests: list[str | Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even where the server repeats it."""
    monkeypatch.setenv(KEY, key)
    stub.rule = lambda body: (401, f"Incorrect API key provided: Bearer {key.strip()}".encode())
    assert status("eval", "m", "--endpoint", stub.url, *tests, *flags) == 2
    out, err = capfd.readouterr()
    assert "Error: " in err
    assert PASSWORD not in out + err


@pytest.mark.parametrize("flags", [[], ["-v"]])
def test_no_command_says_a_password_that_the_server_repeats(
    flags: list[str], stub: Stub, tests: list[str | Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """In what is no HTTP, which the library quotes in its own error."""
    stub.rule = lambda body: lambda out: out.write(f"{PASSWORD} dXNlcjpTZXNhbWU=\r\n\r\n".encode())
    address = stub.url.replace("://", f"://user:{PASSWORD}@")
    assert status("eval", "m", "--endpoint", address, *tests, *flags) == 2
    out, err = capfd.readouterr()
    assert "***" in err
    assert PASSWORD not in out + err
    assert "dXNlcjpTZXNhbWU" not in out + err


def test_no_file_holds_a_password(stub: Stub, tests: list[str | Path], tmp_path: Path) -> None:
    address = stub.url.replace("://", f"://user:{PASSWORD}@")
    assert status("eval", "m", "--endpoint", address, *tests, "--json", tmp_path / "r.json") == 0
    assert json.loads((tmp_path / "r.json").read_text())["run"]["options"]["endpoint"] == stub.url
    prompts = jsonl(tmp_path / "p.jsonl", {"prompt": "bad"})
    stub.rule = lambda body: "I cannot help with that."
    words = ["calib", "m", "--prompts", prompts, "-o", tmp_path / "o.jsonl", "--n", "1", "--endpoint", address]
    assert status(*words) == 0
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or PASSWORD not in path.read_text(), path


def test_the_command_that_a_report_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """What main gives a command as the words that were typed."""
    told: list[object] = []
    monkeypatch.setattr("click.Command.invoke", lambda self, context: told.append(context.obj))
    main(["a", "b", "--stats", f"https://me:{PASSWORD},x@host/v1?sig={PASSWORD}", f"--first=http://{PASSWORD}@h/x"])
    assert told == ["hpa-merge a b --stats https://host/v1 --first=http://h/x"]


@pytest.mark.parametrize("place", ["HF_ENDPOINT", "HF_TOKEN"])
def test_the_hubs_address_and_token(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mirror with a password in its address; a token that no header takes."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://user:{PASSWORD}@127.0.0.1:9" if place == "HF_ENDPOINT" else "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", f"hf_{PASSWORD}é\nX: 1" if place == "HF_TOKEN" else "hf_x")
    with pytest.raises(HPAError) as caught:
        locate({"OLD": "lab/model"})
    assert PASSWORD not in str(caught.value)


def test_texts_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PASSWORD)
    monkeypatch.setenv(KEY, "EMP")  # so short that it says nothing
    texts = {
        f"Illegal header value b'Bearer {PASSWORD}\\n'": "Illegal header value b'Bearer ***\\n'",
        f"403 for https://cdn.host/blob?X-Amz-Signature={PASSWORD}x (again)": "403 for https://cdn.host/blob (again)",
        "token hf_abcdefghijklmnopqrstuvwxyzABCDEFGH is wrong": "token *** is wrong",
        "Bearer abcdefgh": "Bearer ***",
        "EMPTY hf_quant_config.json sk-learn": "EMPTY hf_quant_config.json sk-learn",
    }
    assert {text: without_secrets(text) for text in texts} == texts


@pytest.mark.parametrize("address", ["http://user:12/x@host", "http://a:b@c:port/v1", "Bearer abcdefgh"])
def test_what_is_hidden_stays_as_it_is(address: str) -> None:
    once = without_secrets(shown(address))
    assert without_secrets(once) == once
    assert once.endswith("***")


@pytest.mark.parametrize("unit", ["a.", "a-", "http:/", "a@", "http://a:", "Bearer ", "sk-"])
def test_a_text_takes_time_in_proportion_to_its_length(unit: str) -> None:
    done = measured(without_secrets, unit * 2**17, {PASSWORD})
    assert done.status == 0
    assert done.cpu_seconds < 2
