"""Values, environments and names that mean harm or are broken: status 2 and one sentence, and no mistake of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Call, assert_refused, status

pytestmark = pytest.mark.gate

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("ids", [[10**30], [2**63], [2**31], [-1], [1.5], [True], ["1"], [[1]], [None], [], {}, "12"])
def test_ids_that_are_none(ids: object, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call()
    call.safety = call.calibration({"input_ids": ids})
    assert_refused(call, capsys, f'{call.safety}:1: "input_ids" is not an array of token ids')


@pytest.mark.parametrize("number", [512, 10**9])
def test_ids_beyond_the_vocabulary(
    number: int, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.task = call.calibration({"input_ids": [1, 2]}, {"input_ids": [3, number]})
    assert status(call) == 2
    sentence = capsys.readouterr().err
    assert f"{call.task}:2: input_ids holds {number}, and NEW's vocabulary has 512 tokens" in sentence


@pytest.mark.parametrize("text", ["half \ud83d", "\udc00"])
def test_half_a_character_in_a_sample(
    text: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.safety = call.calibration({"text": text})
    assert_refused(call, capsys, f"{call.safety}:1: it has half a pair of surrogates")


@pytest.mark.parametrize(
    "value", ["http://[::1", "nonsense", "ftp://hub", "http://:80", "https://hub:port", "http://user:secret@[x"]
)
def test_an_address_of_the_hub_that_is_none(
    value: str, monkeypatch: pytest.MonkeyPatch, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    assert_refused(make_call(), capsys, "HF_ENDPOINT in the environment is not an address")


@pytest.mark.parametrize("value", ["ключ", "sésame"])
def test_a_token_that_cannot_be_sent(value: str) -> None:
    words = [sys.executable, "-m", "hpa_merge", "org/old", "org/new", "--safety-calib", "s", "--task-calib", "t"]
    environment = os.environ | {
        "HF_TOKEN": value,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": str(ROOT),
    }
    for command in ([*words, "-o", "out", "--dry-run"], [*words[:3], "inspect", "nowhere"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT / "tests")
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert value not in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p-max: 0x" + "f" * 10**4, "a number of more than 100 digits"),
        ("p-max: " + "9" * 90, "p_max"),
        ("a: &a [b, b]\nb: &b [*a, *a]\ninclude: &c [*b, *b]\nexclude: [*c, *c]", "option"),
        ("include: &a [*a]", "contains itself"),
        ('include: "\\ud800"', "half a pair of surrogates"),
        ("? [a]\n: 1", "is not YAML"),
        ("p-max: !!timestamp no", "does not fit its tag"),
        ("include: ['" + "(a+)+" * 10 + "', '(']", "not a regular expression"),
    ],
)
def test_options_that_mean_harm(
    text: str, complaint: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.options = ("--config", str(call.write("options.yaml", text)))
    assert_refused(call, capsys, complaint)


def latin(path: Path) -> Path:
    """A name next to ``path`` whose bytes are no UTF-8."""
    return path.with_name(os.fsdecode(b"caf\xe9 " + path.name.encode()))


def test_names_that_are_not_utf_8(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    """They are read, written and recorded; what is recorded can be read again."""
    call = make_call()
    renamed = latin(call.folder / "safety.jsonl")
    renamed.write_bytes(call.safety.read_bytes())
    call.safety, call.out = renamed, latin(call.out)
    assert status(call) == 0, capsys.readouterr().err
    report = json.loads((call.out / "hpa_report.json").read_text(encoding="utf-8"))
    assert report["safety"]["file"].endswith(" safety.jsonl")
    for command in ("verify", "inspect", "report"):
        call_words = [command, str(call.out)]
        done = subprocess.run(
            [sys.executable, "-m", "hpa_merge", *call_words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr


def test_a_checkpoint_whose_name_is_not_utf_8(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokenizers' library opens no such file, and no sample of ids needs it."""
    call = make_call()
    call.old = call.old.rename(latin(call.old))
    assert_refused(call, capsys, "has no tokenizer that transformers can load")
    call.safety = call.task = call.calibration({"input_ids": [1, 2, 3]})
    assert status(call) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "-", "a\nb", " ", "a" * 5000, "/dev/null", "/proc/self/mem", "/dev/stdin"])
def test_names_of_no_file(name: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call()
    for place in ("old", "new", "safety", "task"):
        kept = getattr(call, place)
        setattr(call, place, name)
        assert_refused(call, capsys, "Error: ")
        setattr(call, place, kept)
    for option in ("--config", "--stats"):
        call.options = (option, name)
        if option == "--stats" and name in ("-", "a\nb", " "):
            continue  # a name like any other
        assert_refused(call, capsys, "Error: ")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    """What is opened first does not become standard output; the exit status is that of every run."""
    code = (
        "import os, sys; from hpa_merge.cli import main; first = sys.argv.pop()\n"
        "try: main()\n"
        "finally: os.write(os.open(first, os.O_CREAT | os.O_RDWR), b'a'); print('b'); os.write(1, b'c')"
    )
    words = [sys.executable, "-c", code, "report", str(tmp_path / "none"), str(tmp_path / "first")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], env=environment, stderr=subprocess.PIPE)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "first").read_text() == "a"
