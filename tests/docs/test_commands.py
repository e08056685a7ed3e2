"""Every command that the documentation and the examples show is one that the command line takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from pages import PAGES, ROOT, blocks

import hpa_merge
from hpa_merge.cli import COMMANDS
from hpa_merge.cli.merging import merge_command

WORKFLOW = ROOT / "examples" / "ci_workflow" / "merge-eval-gate.yml"


def commands(script: str) -> Iterator[list[str]]:
    """The words of each call of hpa-merge in a shell script; those of a synopsis, which has an ellipsis, are none."""
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if set(word) <= set("();<>|&\n"):
            if words[:1] == ["hpa-merge"] and "…" not in " ".join(words):
                yield words[1:]
            words = []
        else:
            words.append(word)


def shown() -> Iterator[tuple[str, list[str]]]:
    """Where each command is shown, and its words."""
    for page in PAGES:
        for block in blocks(page):
            for line in block.commands:
                for words in commands(line):
                    yield page.relative_to(ROOT).as_posix(), words
    for step in yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["merge"]["steps"]:
        for words in commands(step.get("run", "")):
            yield WORKFLOW.relative_to(ROOT).as_posix(), words


SHOWN = list(shown())


def accepts(words: list[str]) -> click.Context:
    """Parse a command as the command line does, without running it.

    Raises:
        click.UsageError: it has an option that there is not, or lacks one that there has to be.
    """
    name, rest = (words[0], words[1:]) if words[0] in COMMANDS else ("", words)
    return COMMANDS.get(name, merge_command).make_context(name, list(rest))


def test_there_are_commands_of_every_kind() -> None:
    assert len(SHOWN) > 40
    assert {words[0] for _, words in SHOWN} >= set(COMMANDS)
    assert WORKFLOW.relative_to(ROOT).as_posix() in {place for place, _ in SHOWN}


@pytest.mark.parametrize("place", sorted({place for place, _ in SHOWN}))
def test_the_command_line_takes_it(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # files need not be there: that is looked at when a command runs
    for found, words in SHOWN:
        if found == place:
            with accepts(words):
                pass


@pytest.mark.parametrize("words", ["old new -o out --no-such-option", "push --private", "eval old --json"])
def test_others_are_refused(words: str) -> None:
    with pytest.raises(click.UsageError):
        accepts(words.split())


def test_nothing_is_installed_from_an_index_that_does_not_have_it() -> None:
    """Neither the documentation nor a message of the package tells anybody to."""
    texts = [*PAGES, *Path(hpa_merge.__file__).parent.rglob("*.py"), *(ROOT / "examples").rglob("*.yml")]
    assert len(texts) > 200
    named = re.compile(r"pip install [^\n`&;]*(?<![\w./-])hpa-merge(?!'s)")
    assert not [(path, found[0]) for path in texts if (found := named.search(path.read_text(encoding="utf-8")))]
