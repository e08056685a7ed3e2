"""What the tests of the evaluation share: files of records, models that answer by a rule, and the command's status."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hpa_merge.cli import main
from hpa_merge.records import Sample

REFUSES = "I'm sorry, but I can't help with that."


def jsonl(path: Path, *records: object) -> Path:
    """A file of these records; a string is written as it is."""
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(printed: str) -> list[str]:
    """The lines of a printed table, with one space between the cells."""
    return [" ".join(line.split()) for line in printed.splitlines()]


class Rule:
    """An answerer that answers by a function of the prompt's text; notes what it is given."""

    def __init__(self, rule: Callable[[str], str], window: int = 3) -> None:
        self.window = window
        self.asked: list[Sequence[Sample]] = []
        self._rule = rule

    def answer(self, prompts: Sequence[Sample]) -> list[str]:
        self.asked.append(list(prompts))
        return [self._rule("|".join(str(part) for part in prompt.turns[-1].parts)) for prompt in prompts]


def status(*words: object) -> int | str | None:
    """The exit status of the command, in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    return 0
