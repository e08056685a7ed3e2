"""An answer and its references become a score between 0 and 1.

| metric | an answer is right if |
| --- | --- |
| ``exact`` | it is a reference, case, white space and the stops around it apart |
| ``contains`` | a reference stands in it as whole words, case and white space apart |
| ``choice`` | it says the letter or the text of the right choice, and of no other |
| ``vqa`` | people agree with it: VQA accuracy, see :mod:`hpa_merge.evaluation.vqa` |
| ``rouge-l`` | not right or wrong: the F-measure of ROUGE-L, by the library ``rouge-score``, to the best reference |
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from string import ascii_uppercase
from typing import Any

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.prompts import Prompt, PromptFile
from hpa_merge.evaluation.vqa import FEWEST_ANSWERS, vqa_accuracy

__all__ = ["check_metric", "default_metric", "score"]

_STOPS = " .,;:!?\"'`*()[]"
_SAID = re.compile(r"\b(?i:answer|option|choice)\b(?:\s++is)?\s*+:?\s*+[(*\[\"']*+([A-Z])\b(?!')")
_LEADING = re.compile(r"[(*\[\"']*([A-Z])(?:[).:,*\]\"']|$|\s*\n)")


def default_metric(prompts: PromptFile) -> str:
    """What a file is scored by where nothing else is asked for: the record that stands for it says."""
    first = prompts.example
    return "choice" if first.choices else "vqa" if len(first.references) >= FEWEST_ANSWERS else "exact"


def check_metric(metric: str, prompts: PromptFile) -> None:
    """Check that every record has what the metric needs, and that its library is there.

    Raises:
        EvaluationError: it has not.
    """
    if metric == "rouge-l" and find_spec("rouge_score") is None:
        raise EvaluationError("ROUGE-L needs the library rouge-score: pip install 'hpa-merge[eval]'.")
    for prompt in prompts if metric in ("choice", "vqa") else ():
        if metric == "choice" and not prompt.choices:
            raise EvaluationError(f'{prompt.source} has no "choices", which the metric choice needs: add them.')
        if metric == "vqa" and len(prompt.references) < FEWEST_ANSWERS:
            raise EvaluationError(
                f'{prompt.source} has {len(prompt.references)} "answers", and VQA accuracy needs {FEWEST_ANSWERS} or '
                "more (VQA has ten): add them, or choose the metric exact."
            )


def score(metric: str, answer: str, prompt: Prompt) -> float:
    """Between 0 and 1; :data:`~hpa_merge.evaluation.names.METRICS` are the names."""
    return _SCORES[metric](answer, prompt)


def _exact(answer: str, prompt: Prompt) -> float:
    said = _plain(answer)
    return float(any(said == _plain(reference) for reference in prompt.references))


def _contains(answer: str, prompt: Prompt) -> float:
    said = _plain(answer)
    found = (re.search(rf"(?<!\w){re.escape(_plain(reference))}(?!\w)", said) for reference in prompt.references)
    return float(any(found))


def _choice(answer: str, prompt: Prompt) -> float:
    return float(_chosen(answer, prompt.choices) == prompt.references[0])


def _vqa(answer: str, prompt: Prompt) -> float:
    return vqa_accuracy(answer, prompt.references)


def _rouge_l(answer: str, prompt: Prompt) -> float:
    scored: dict[str, Any] = _rouge_scorer().score_multi(list(prompt.references), answer)
    return float(scored["rougeL"].fmeasure)


_SCORES: dict[str, Callable[[str, Prompt], float]] = {
    "exact": _exact,
    "contains": _contains,
    "choice": _choice,
    "vqa": _vqa,
    "rouge-l": _rouge_l,
}


def _plain(text: str) -> str:
    """Without case, without stops around, one blank between words."""
    return " ".join(text.casefold().split()).strip(_STOPS)


def _chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that the answer settles on; None where it settles on none, or on several.

    In this order: it is the text of a choice; it begins with a letter that something other than a word follows ("B.",
    "(B) red", but not "A red one"); it says "answer: B" or "option B"; it has the text of one choice alone in it.
    """
    letters = ascii_uppercase[: len(choices)]
    texts = [_plain(choice) for choice in choices]
    if (said := _plain(answer)) in texts:
        return letters[texts.index(said)]
    if (found := _LEADING.match(answer.strip())) and found[1] in letters:
        return str(found[1])
    if len(named := {str(letter) for letter in _SAID.findall(answer) if letter in letters}) == 1:
        return named.pop()
    held = [
        letter
        for letter, text in zip(letters, texts, strict=True)
        if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said)
    ]
    return held[0] if len(held) == 1 else None


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
