"""Which choice of a multiple choice an answer settles on."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from hpa_merge.evaluation.words import holds, plain, without

__all__ = ["chosen"]

LOOKED_AT = 10_000
"""Characters at each end of an answer in which it is looked for what it settles on."""

_SAID = "|".join(
    (
        r"(?:correct |right |best )?answers?|ans\.?|(?:correct|right) (?:option|choice|letter)",
        "antwort|lösung|réponse|respuesta|risposta|resposta|antwoord|odpowiedź|cevap|jawaban|đáp án|ответ",
        "correcta|corretta|correta|opción correcta|alternativa correta",
        "答案|答え|答|正解|解答|回答|正确选项|正確選項|정답|답|الإجابة(?: الصحيحة)?|الجواب|الاجابة|उत्तर|जवाब|คำตอบ",
    )
)
"""What stands before the letter of an answer."""

_IS = "|".join(
    (
        "is|are|would be|must be|should be|ist|lautet|wäre|est|serait|es|sería|è|sarebbe|é|seria|adalah|là|-|—|–|это",
        "是|为|為|应为|應為|应该是|選|选|は|が|은|는|이|가|هي|هو|है|คือ",
    )
)
"""What may stand between the two."""

_ARTICLE = r"(?:(?:the|die|la|le|el|il|a)\s{1,3})?"
_OPTION = r"(?:(?:option|choice|letter|opción|opção|opzione|选项|選項)\s{0,3}[:=]?\s{0,3})?"
_NAMES = "option|choice|choose|pick|select|go with|選|选|选择|選択肢|選項|选项|보기|вариант|opción|opção|opzione"

_APART = r"(?<![A-Za-z\u00c0-\u024f\u0400-\u04ff])"
"""Before a word, which in scripts without blanks may follow another."""

_ENDS = r"(?![A-Za-z0-9_'\u00c0-\u024f\u0400-\u04ff])"
_MARKS = r"[(\[{*\"'`$「『]{0,4}"
_LETTER = rf"{_MARKS}([A-Za-z]){_ENDS}"

_STATED = re.compile(
    rf"{_APART}(?:(?:{_SAID})[*_】\]]{{0,2}}\s{{0,3}}(?:(?:{_IS})\s{{0,3}})?[:=]?|(?:option|choice|pick)\s{{0,3}}(?:is\b|[:=]))[*_]{{0,2}}"
    rf"\s{{0,3}}{_ARTICLE}{_OPTION}{_LETTER}",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"{_APART}(?:{_NAMES})\s{{0,3}}[:=]?\s{{0,3}}{_LETTER}", re.IGNORECASE)
_RIGHT = re.compile(
    rf"{_APART}{_LETTER}[)\].*]{{0,3}}\s{{1,3}}(?:is|would be|seems)\s{{1,3}}{_ARTICLE}(?:correct|right|best|answer)",
    re.IGNORECASE,
)
_LEADING = re.compile(r"[(\[{*\"'`]{0,4}([A-Za-z])(?:[)\]}.:,、。*\"'`]|\s*$|\s*\n|\s+[-–—]\s)")
_SPOKEN = re.compile(r"a\s{0,3}[:.]\s{0,3}[(\[*]{0,3}([a-z])\W{0,4}", re.IGNORECASE)
_ALONE = re.compile(rf"{_APART}([B-HJ-Z]){_ENDS}|[(\[]\s?([A-Z])\s?[)\]]")
_BOXED = re.compile(
    r"\\boxed\s{0,4}\{([^{}]{0,80}(?:\{[^{}]{0,80}\})?[^{}]{0,80})\}|<answer>([^<]{0,200})</answer>", re.IGNORECASE
)
_COMMAND = re.compile(r"\\[a-z]{1,20}\s?\{([^{}]{0,80})\}")
_NEGATED = re.compile(
    rf"{_APART}(?:not|isn't|nicht|pas|non|не|不是|并非)\s{{0,3}}(?:the\s|option\s)?{_LETTER}[)\]*]{{0,3}}",
    re.IGNORECASE,
)
_AND = (
    r"(?:[,/&+;、]|和|或|与|與|及|と|か|또는|\s(?:or|and|oder|und|ou|et|o|y|e|и|или|و|أو|या|और)\s)"
    r"\s{0,3}(?:option\s|choice\s)?"
)
_NEXT = re.compile(rf"[)\]}}*\"'`.\s]{{0,4}}{_AND}{_LETTER}", re.IGNORECASE)
_PAIR = re.compile(rf"{_APART}([A-Z])[)\]*]{{0,2}}{_AND}{_LETTER}")


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that the answer settles on; None where it settles on none, or on several.

    In this order: it is the text of a choice, or a letter; it has a letter in a box or in the tag ``answer``; it says
    "the answer is B" in one of many languages; it begins with a letter that something other than a word follows ("B.",
    "(b) red", but not "A red one"); it says "option B" or "B is correct"; it has the text of one choice alone in it;
    it has one letter alone in it. A letter in lower case counts where it can be no word. "Not A" is no choice of A.
    """
    letters = ascii_uppercase[: len(choices)]
    texts = [plain(choice) for choice in choices]
    text = unicodedata.normalize("NFKC", answer).strip()
    if len(text) > 2 * LOOKED_AT:
        text = f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"
    if (said := plain(text)) in texts:
        return letters[texts.index(said)]
    if len(said) == 1 and said.upper() in letters:
        return said.upper()
    for ways in (_boxed, _stated, _leading, _named):
        found = ways(text, letters)
        if found:
            return found.pop() if len(found) == 1 else None
    if held := _held(plain(_NEGATED.sub(" ", text)), texts, letters):
        return held[0] if len(held) == 1 else None
    kept = _NEGATED.sub(" ", text)
    alone = {letter for pattern in (_ALONE, _PAIR) for pair in pattern.findall(kept) for letter in pair} & {*letters}
    return alone.pop() if len(alone) == 1 else None


def _boxed(text: str, letters: str) -> set[str]:
    """The letters in the last box."""
    boxes = list(_BOXED.finditer(text))
    if not boxes:
        return set()
    inside = boxes[-1][1] if boxes[-1][1] is not None else boxes[-1][2]
    inside = _COMMAND.sub(r"\1", inside).strip(" .()[]*")
    return _leading(inside, letters) or _listed(inside, letters)


def _stated(text: str, letters: str) -> set[str]:
    """The letters that the answer says to be its answer; those of its final answer where it has one."""
    kept = _NEGATED.sub(" ", text)
    final = re.split(r"final answer", kept, flags=re.IGNORECASE)
    return _of(_STATED, "answer" + final[-1] if len(final) > 1 else kept, letters)


def _named(text: str, letters: str) -> set[str]:
    kept = _NEGATED.sub(" ", text)
    return _of(_NAMED, kept, letters) or {letter.upper() for letter in _RIGHT.findall(kept)} & {*letters}


def _leading(text: str, letters: str) -> set[str]:
    """The letters that the answer begins with."""
    if (spoken := _SPOKEN.fullmatch(text)) is not None and spoken[1].upper() in letters:
        return {spoken[1].upper()}
    if listed := _listed(text, letters):
        return listed
    found = _LEADING.match(text)
    if found is None or found[1].upper() not in letters or found[0] == "a,":
        return set()
    return {found[1].upper(), *_following(text[found.start(1) + 1 :], letters)}


def _listed(text: str, letters: str) -> set[str]:
    """The letters of an answer that has nothing but letters: ``A, B``."""
    words = re.split(r"[\s,/&+;、，]+|(?<![^\W\d_])(?:or|and|oder|und|ou|et|y|и|или|和|或|と)(?![^\W\d_])", text)
    found = [word.strip("()[]*.") for word in words if word and word.strip("()[]*.")]
    if found and all(len(word) == 1 and word.upper() in letters for word in found):
        return {word.upper() for word in found}
    return set()


def _of(pattern: re.Pattern[str], text: str, letters: str) -> set[str]:
    """The letters that a pattern finds, and those that follow each."""
    found: set[str] = set()
    for match in pattern.finditer(text):
        if match[1] == "a" and re.match(r"\s+\w", text[match.end() :]):  # an article
            continue
        found |= {match[1].upper(), *_following(text[match.end() :], letters)} & {*letters}
    return found


def _following(rest: str, letters: str) -> Iterator[str]:
    """The letters that follow one in a list: ``, B``."""
    while (found := _NEXT.match(rest[:80])) is not None:
        after = rest[found.end() : found.end() + 2]
        if found[1].upper() not in letters or (found[1] in "aeoyu" and re.match(r"\s\w", after)):  # a word
            return
        yield found[1].upper()
        rest = rest[found.end() :]


def _held(said: str, texts: Sequence[str], letters: str) -> list[str]:
    """The letters of the choices whose text stands in what was said; a choice within a longer one does not count."""
    held = []
    for text, letter in sorted(zip(texts, letters, strict=True), key=lambda pair: -len(pair[0])):
        if holds(said, text):
            held.append(letter)
            said = without(said, text)
    return held
