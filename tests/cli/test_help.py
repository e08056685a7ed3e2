"""The help in groups, the short help, and what a misspelt command or option is told."""

import re
from collections import Counter
from pathlib import Path

import click
import pytest

from hpa_merge.cli import COMMANDS, main
from hpa_merge.cli.help import LAST, NEEDED, Grouped, group_of
from hpa_merge.cli.merging import merge_command
from hpa_merge.config import option_fields
from hpa_merge.methods import DEFAULT, users

GROUPED = {"": merge_command} | {name: each for name, each in COMMANDS.items() if isinstance(each, Grouped)}


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(words)
    return capsys.readouterr().out


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of what a refused command prints."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", GROUPED)
def test_every_option_is_in_the_help_once(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = printed([*([name] if name else []), "--help"], capsys)
    rows = re.findall(r"^  (-\S.*?)(?:  |$)", text.partition(NEEDED)[2], flags=re.MULTILINE)
    beginnings = Counter(word.rstrip(",") for row in rows for word in row.split() if word.startswith("-"))
    for option in GROUPED[name].params:
        if isinstance(option, click.Option) and option.name != "brief":
            assert beginnings[max(option.opts, key=len)] == 1, option.name


def test_the_groups_are_in_their_order_and_rules_have_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(["--help"], capsys)
    titles = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    first = ["Commands, in OLD's place", NEEDED, "The method", f"Method {DEFAULT}"]
    assert titles[: len(first)] == first
    assert titles.index("Memory and device") < titles.index("Method linear") < titles.index(LAST)
    for option in option_fields():
        of, (_, title) = users(option), group_of(option, ())
        if of and option != "uncalibrated":
            assert title == (f"Method {DEFAULT}" if DEFAULT in of else f"Method{'s'[: len(of) > 1]} {' and '.join(of)}")
    _, _, linear = text.partition("Method linear:")
    assert linear.split()[:4] == ["--weight", "FLOAT", "Share", "of"]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_short_help_is_one_screen(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = printed(["-h"], capsys).splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= int(columns)
    begun = [line.split()[0] for line in lines if line.strip()]
    assert set(COMMANDS) <= set(begun)
    assert [word for word in begun if word.startswith("-")] == [
        "--safety-calib",
        "--task-calib",
        "-o,",
        "--p-max",
        "--dry-run",
        "--resume",
    ]
    assert lines[-1].startswith("hpa-merge --help shows all ")
    assert len(printed(["tune", "-h"], capsys).splitlines()) < 40


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("tuen", "hpa-merge tune"),
        ("Verify", "hpa-merge verify"),
        ("evaluate", "hpa-merge eval"),
        ("calibrate", "hpa-merge calib"),
        ("reprot", "hpa-merge report"),
        ("publish", "hpa-merge push"),
        ("help", "hpa-merge --help"),
        ("merge", "hpa-merge OLD NEW …, without a word before OLD"),
    ],
)
def test_a_misspelt_command(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = f"Error: there is no command '{given}' and no folder of that name: did you mean {meant}?"
    for words in ([given], [given, "a", "b", "-o", "out"], [given, "--help"]):
        assert told(words, capsys) == sentence
    Path(given).mkdir()
    assert "no command" not in told([given, "nowhere", "-o", "out", "--method", "linear"], capsys)


@pytest.mark.parametrize("old", ["models/tuen", "./tuen", "my-base", "x"])
def test_a_word_that_is_like_no_command_is_old(
    old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "no command" not in told([old], capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("a b --safty-calib s", "'--safty-calib': did you mean --safety-calib?"),
        ("a b --p_max 3", "'--p_max': did you mean --p-max?"),
        ("a b --OVERWRITE", "'--OVERWRITE': did you mean --overwrite?"),
        ("a b -safety-calib=s", "'-safety-calib': did you mean --safety-calib?"),
        ("a b --no-orthogonl", "'--no-orthogonl': did you mean --no-orthogonal?"),
        ("a b --safety-test s", "'--safety-test': hpa-merge eval and hpa-merge tune have it."),
        ("eval a --keep-all", "'--keep-all': hpa-merge tune has it."),
        ("tune a b --task s", "'--task': did you mean --task-test, --task-calib or --task-samples?"),
        ("inspect a --histroy", "'--histroy': did you mean --history?"),
        ("verify a --zzzz", "'--zzzz': hpa-merge verify --help lists all."),
    ],
)
def test_a_misspelt_option(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(words.split(), capsys) == f"Error: No such option {sentence}"


def test_a_misspelt_option_of_a_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o.yaml").write_text("safety_sampels: 3\n")
    words = ["a", "b", "-o", "o", "--safety-calib", "s", "--task-calib", "t", "--config", str(tmp_path / "o.yaml")]
    assert "has no option 'safety_sampels' (did you mean safety_samples?): the options are " in told(words, capsys)


def test_flags_before_a_command_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: hpa-merge tune" in printed(["--help", "tune"], capsys)
    assert told(["-q", "verify", "nowhere"], capsys).startswith("Error: OUT nowhere does not exist")
