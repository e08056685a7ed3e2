"""Shell completion: the scripts, what they are answered, and bash itself with the script sourced."""

import os
import shlex
import subprocess
import sys

import pytest

from hpa_merge.cli import COMMANDS, main
from hpa_merge.cli.completion import VARIABLE


def answered(shell: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a shell is told when the tab key is pressed in the last of ``words``."""
    line = shlex.join(words[:-1]) + " "
    monkeypatch.setenv("COMP_WORDS", line if shell == "fish" else line + words[-1])
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
    monkeypatch.setenv(VARIABLE, f"{shell}_complete")
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program_and_the_variable(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["completion", shell])
    script = capsys.readouterr().out
    assert f"{VARIABLE}={shell}_complete" in script
    assert "hpa-merge" in script
    monkeypatch.setenv(VARIABLE, f"{shell}_source")  # click's own way
    main([])
    assert capsys.readouterr().out == script


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["completion", "tcsh"])
    assert end.value.code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'." in capsys.readouterr().err


def test_an_unknown_question_is_no_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tcsh_complete")
    main(["completion", "fish"])
    assert "function _hpa_merge_completion" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_first_word_is_a_folder_or_a_command(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = answered(shell, ["hpa-merge", ""], capsys, monkeypatch)
    assert said.startswith("dir")
    assert all(command in said for command in COMMANDS)
    assert "verify" in (said := answered(shell, ["hpa-merge", "ver"], capsys, monkeypatch))
    assert "tune" not in said


CASES = [
    (["--vers"], ["plain,--version"]),
    (["--max-m"], ["plain,--max-memory"]),
    (["--no-o"], ["plain,--no-orthogonal"]),
    (["--selection", "s"], ["plain,safety", "plain,shared"]),
    (["--selection", "=", "sh"], ["plain,shared"]),
    (["--method", "safe"], ["plain,safe-delta"]),
    (["old", ""], ["dir,"]),
    (["old", "new", "--safety-calib", "s"], ["file,s"]),
    (["verify", "o"], ["file,o"]),
    (["verify", "out", "--qu"], ["plain,--quiet"]),
    (["verify", "out", "--p-m"], []),
    (["sweep", "old", "new", "set"], ["file,set"]),
    (["tune", "old", "new", "--max-a"], ["plain,--max-asr"]),
    (["eval", "old", "n"], ["dir,n"]),
    (["eval", "old", "--safety-test", "held"], ["file,held"]),
    (["eval", "old", "--task-test", "codes", "=", "held"], ["file,held"]),
    (["eval", "old", "--task-test", "codes", "="], ["file,"]),
    (["completion", ""], ["plain,bash", "plain,zsh", "plain,fish"]),
]


@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_options_choices_and_paths(
    words: list[str],
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert answered("bash", ["hpa-merge", *words], capsys, monkeypatch).split() == expected


BASH = """
eval "$(hpa-merge completion bash)"
complete -p hpa-merge
_complete_words() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _hpa_merge_completion hpa-merge
    printf '%s\\n' "${COMPREPLY[*]}"
}
compopt() { printf 'compopt %s %s\\n' "$1" "$2"; }
_complete_words hpa-merge ver
_complete_words hpa-merge verify out --o
_complete_words hpa-merge old new --uncalibrated ''
_complete_words hpa-merge old ''
_complete_words hpa-merge verify ''
"""


@pytest.mark.usefixtures("program")
def test_bash_itself_completes() -> None:
    done = subprocess.run(["bash", "--norc", "-c", BASH], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    registered, *answers = done.stdout.splitlines()
    assert registered == "complete -o nosort -F _hpa_merge_completion hpa-merge"
    directories, files = ["compopt -o dirnames"], ["compopt -o default"]
    assert answers == [*directories, "verify", "--old", "new old error", *directories, "", *files, ""]


WITHOUT_TORCH = """
import sys
from hpa_merge.cli import main
main()
print([name for name in ("torch", "transformers", "safetensors", "PIL") if name in sys.modules])
"""


def test_completion_does_without_torch() -> None:
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": "hpa-merge verify --", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert "plain,--vision-tower" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
