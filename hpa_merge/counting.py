"""A number and what it counts, and a list of things, in words: the one place that knows singular and plural."""

import re
from collections.abc import Iterable

__all__ = ["counted", "listed_words", "plural", "singular"]

HEAD = re.compile(r"(?<![\w-])([\w-]++)(?=$|,| (?:or|of|from|in|on|for|with|that|to)\b)")
"""The nouns of a phrase: the last word, and the last before a comma or a preposition."""


INVARIABLE = ("tied", "unknown")
"""Words for things that are not nouns."""

SINGULAR_VERBS = {"are": "is", "have": "has"}


def counted(count: int, thing: str, verb: str = "") -> str:
    """``1 weight file``, ``2 weight files``, ``36 norms, biases or scalars``; with ``differ``: ``1 value differs``.

    Args:
        thing: in the singular.
        verb: what it does, if it follows; in the plural.
    """
    does = (SINGULAR_VERBS.get(verb, f"{verb}s") if count == 1 else verb) if verb else ""
    return f"{count} {thing if count == 1 else plural(thing)}{' ' if verb else ''}{does}"


def listed_words(words: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``; ``last`` stands before the last one."""
    *first, final = list(words) or [""]
    return f"{', '.join(first)} {last} {final}" if first else final


def plural(thing: str) -> str:
    """The plural of a phrase: ``tensor from NEW`` becomes ``tensors from NEW``."""
    first, preposition, rest = _parted(thing)
    return HEAD.sub(lambda word: _several(word[1]), first) + preposition + rest


def singular(things: str) -> str:
    """The singular of a phrase in the plural: ``weight files`` becomes ``weight file``."""
    first, preposition, rest = _parted(things)
    return HEAD.sub(lambda word: _one(word[1]), first) + preposition + rest


def _parted(phrase: str) -> tuple[str, str, str]:
    """What comes before the first preposition, the preposition, and the rest."""
    found = re.search(r" (?:of|from|in|on|for|with|that|to) ", phrase)
    return (phrase, "", "") if found is None else (phrase[: found.start()], found[0], phrase[found.end() :])


def _several(word: str) -> str:
    if word in INVARIABLE:
        return word
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def _one(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("xes", "ches", "shes")) else word.removesuffix("s")
