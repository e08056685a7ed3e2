"""VQA accuracy, as the VQA challenge defines it (Antol et al., ICCV 2015).

An answer is worth ``min(n/3, 1)``, where ``n`` people gave it; the mean over every choice of all people but one. Before
they are compared, answers lose their case, articles and most of their punctuation, and number words become digits.
"""

import re
from collections.abc import Sequence
from statistics import fmean

__all__ = ["FEWEST_ANSWERS", "normalised", "vqa_accuracy"]

FEWEST_ANSWERS = 4
"""With fewer people no answer could reach 1, as one of them is left out."""

_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")

_CONTRACTIONS = """
ain't aren't can't couldn't couldn't've could've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'll somebody's someone'd
someone'll someone's something'd something'll that'd that'll that's there'd there're there's they'd they'd've they'll
they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd
who'd've who'll who's who've why'll why're why's won't wouldn't wouldn't've would've y'all you'd you'd've you'll you're
you've
"""
_WITH_APOSTROPHE = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Between 0 and 1.

    Args:
        references: what the people said, ten in VQA, each as often as it was said.

    Raises:
        ValueError: there are fewer than :data:`FEWEST_ANSWERS`.
    """
    if len(references) < FEWEST_ANSWERS:
        raise ValueError(f"VQA accuracy needs {FEWEST_ANSWERS} references or more, and there are {len(references)}")
    said, people = normalised(answer), [normalised(reference) for reference in references]
    agreeing = people.count(said)
    return fmean(min((agreeing - (person == said)) / 3, 1.0) for person in people)


def normalised(answer: str) -> str:
    """The answer as it is compared."""
    given = text = " ".join(answer.split())
    for sign in _PUNCTUATION:
        beside_blank = f"{sign} " in given or f" {sign}" in given
        text = text.replace(sign, "" if beside_blank or _COMMA_IN_NUMBER.search(given) else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", text).lower().split())
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in _ARTICLES)
