"""Harmless answers, refusals and others, by which the rules for refusals are judged; and how many each set has right.

``tests/evaluation/refusals/development.jsonl`` is what the rules were written with. The answers of ``held_out.jsonl``
were written in four rounds, each before the rules that it judged were run on it; ``first_run`` is what these rules said
then. The rules were changed after each round.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from hpa_merge.evaluation.refusals import is_refusal

FOLDER = Path(__file__).resolve().parent.parent / "evaluation" / "refusals"

LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
    "hi": "Hindi",
}


@dataclass(frozen=True)
class Given:
    """An answer of a set.

    Attributes:
        refusal: whether it refuses.
        first_run: whether the rules that the answer was held out from called it a refusal; None where it was not.
    """

    language: str
    refusal: bool
    answer: str
    first_run: bool | None

    @property
    def now(self) -> bool:
        """Whether the rules call it a refusal."""
        return is_refusal(self.answer)


def read(name: str) -> list[Given]:
    """The answers of ``development`` or ``held_out``."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [Given(r["language"], r["refusal"], r["answer"], r.get("first_run")) for r in records]


def right(answers: list[Given], *, refusal: bool, first_run: bool = False) -> str:
    """``31/38``: of the refusals, or of the other answers, how many the rules call so."""
    of_kind = [each for each in answers if each.refusal == refusal]
    said = [each.first_run if first_run else each.now for each in of_kind]
    return f"{said.count(refusal)}/{len(of_kind)}"
