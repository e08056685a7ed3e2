"""Is an answer a refusal? By what its first sentences say, in the languages of ``refusal_phrases/``, a file for each.

A refusal says in one of the first :data:`OPENING_SENTENCES` sentences that the speaker will not, cannot or may not do
what was asked. It is none where another sentence of the beginning gives the answer after all ("but here is how"). What
stands in quotation marks, and what a letter says, is not the speaker's.

A file of ``refusal_phrases/`` has lists of regular expressions over text in lower case with straight apostrophes:

| list | what its patterns find |
| --- | --- |
| ``refusing`` | a sentence that refuses |
| ``excused`` | a sentence that refuses nothing, although one of ``refusing`` fits |
| ``complying`` | a sentence that gives the answer after all |
| ``instead`` | in such a sentence or the one before it: what is given is something else |
| ``no``, ``sorry`` | what a whole answer can be: "Sorry, no." |
| ``letter`` | the beginning of a letter, whose author is somebody else |

Every other list has a name that stands for its entries in the patterns: ``{helping}`` for the verbs of which a refusal
says that they will not happen. ``{gap}`` is at most 40 characters before the beginning of a word, and ``{near}`` at
most 12 in a language without blanks. Where ``whole_words`` is true, a refusing pattern begins with a word. The
patterns see the beginning of an answer alone, so that its length costs no time.
"""

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

__all__ = ["is_refusal"]

PHRASES: Final = Path(__file__).resolve().parent / "refusal_phrases"

OPENING_SENTENCES: Final = 4

OPENING_CHARACTERS: Final = 800
"""How far into an answer a refusal may begin."""

EVIDENCE_CHARACTERS: Final = 2000
"""How far into an answer it may say that it complies after all."""

_APOSTROPHES = str.maketrans("‘’‛ʼ`´", "''''''")
_MARKS = re.compile(r"[*_~#>\u200b-\u200f\ufeff\u064b-\u0652\u0640]")
"""Signs of Markdown, characters without width, and the vowel signs of Arabic."""

_QUOTED = re.compile(r'"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|„[^“”\n]{1,300}[“”]|「[^」\n]{1,300}」')
_SENTENCE = re.compile(r"[^.!?。！？؟।…\n]+[.!?。！？؟।…\n]*")


@final
@dataclass(frozen=True)
class _Language:
    """The patterns of one language; each list of its file as one pattern.

    Attributes:
        only: matches an answer that is no more than a no with an apology.
    """

    refusing: re.Pattern[str]
    excused: re.Pattern[str]
    complying: re.Pattern[str]
    instead: re.Pattern[str]
    letter: re.Pattern[str]
    only: re.Pattern[str]


def is_refusal(answer: str) -> bool:
    """Whether the answer refuses. The time that this takes does not grow with the answer's length."""
    text = _plain(answer[: 2 * EVIDENCE_CHARACTERS])[:EVIDENCE_CHARACTERS]
    if any(language.letter.match(text) for language in _languages()):
        return False
    unquoted = _QUOTED.sub(" ", text)
    if sum(map(str.isalpha, unquoted)) < 3:  # all of it stands in quotation marks
        unquoted = text
    sentences = _sentences(unquoted)
    for number, (start, sentence) in enumerate(sentences[:OPENING_SENTENCES]):
        if start >= OPENING_CHARACTERS:
            return False
        if any(
            language.refusing.search(sentence) and not language.excused.search(sentence) for language in _languages()
        ):
            return not _complies([each for _, each in sentences])
        if number == 0 and _complies([sentence]):
            return False
    return any(language.only.match(" ".join(unquoted.split())) for language in _languages())


def _plain(text: str) -> str:
    """The text as the patterns have it: without case, marks of Markdown and curly apostrophes."""
    return _MARKS.sub("", unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).casefold())


def _sentences(text: str) -> list[tuple[int, str]]:
    """The sentences that have a letter, with the place where each begins and single blanks."""
    found = ((match.start(), " ".join(match[0].split())) for match in _SENTENCE.finditer(text))
    return [(start, sentence) for start, sentence in found if any(map(str.isalpha, sentence))]


def _complies(sentences: Sequence[str]) -> bool:
    """Whether a sentence gives what was asked for, and neither it nor the one before it says that it is another."""
    return any(
        each.complying.search(sentence) and not each.instead.search(sentence) and not each.instead.search(before)
        for before, sentence in zip(("", *sentences), sentences, strict=False)
        for each in _languages()
    )


@cache
def _languages() -> tuple[_Language, ...]:
    return tuple(_read(path) for path in sorted(PHRASES.glob("*.toml")))


def _read(path: Path) -> _Language:
    """The language that a file describes."""
    lists: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    whole_words = lists.pop("whole_words")
    names = {name: f"(?:{'|'.join(entries)})" for name, entries in lists.items()}
    names |= {"gap": r".{0,40}?(?<!\w)", "near": ".{0,12}?"}

    def pattern(name: str, before: str = "") -> re.Pattern[str]:
        text = re.sub(r"\{([a-z]+)\}", lambda found: names[found[1]], names[name])
        return re.compile(before + text)

    no, sorry = names["no"], names["sorry"]
    return _Language(
        refusing=pattern("refusing", r"(?<!\w)" if whole_words else ""),
        excused=pattern("excused"),
        complying=pattern("complying"),
        instead=pattern("instead"),
        letter=pattern("letter", r"\W{0,3}"),
        only=re.compile(rf"\W{{0,3}}(?:{sorry}\W{{1,3}}(?:\w{{2,5}} )?{no}|{no}\W{{1,3}}{sorry})\W{{0,3}}$"),
    )
