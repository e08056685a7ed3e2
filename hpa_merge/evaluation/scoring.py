"""An answer and its references become a score between 0 and 1.

| metric | an answer is right if |
| --- | --- |
| ``exact`` | it is a reference, case, white space and the stops around it apart |
| ``contains`` | a reference stands in it as whole words, case and white space apart |
| ``choice`` | it says the letter or the text of the right choice alone: :mod:`hpa_merge.evaluation.choices` |
| ``vqa`` | people agree with it: VQA accuracy, see :mod:`hpa_merge.evaluation.vqa` |
| ``rouge-l`` | not right or wrong: the F-measure of ROUGE-L, by the library ``rouge-score``, to the best reference |

For the first two a number is its value: 3 and 3.0 are equal, 1,000 and 1000 too, and 3 does not stand in 3.5.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, final

from hpa_merge.errors import EvaluationError, extra
from hpa_merge.evaluation.choices import chosen
from hpa_merge.evaluation.prompts import Prompt, PromptFile
from hpa_merge.evaluation.vqa import FEWEST_ANSWERS, vqa_accuracy
from hpa_merge.evaluation.words import holds, number_of, numbers, plain, tokens

__all__ = ["check_metric", "default_metric", "score"]


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
        raise EvaluationError(f"ROUGE-L needs the library rouge-score: {extra('eval')}.")
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
    said = plain(answer)
    return float(any(_same(said, plain(reference)) for reference in prompt.references))


def _same(said: str, reference: str) -> bool:
    number = number_of(said)
    return said == reference or (number is not None and number == number_of(reference))


def _contains(answer: str, prompt: Prompt) -> float:
    said = plain(answer)
    for reference in map(plain, prompt.references):
        number = number_of(reference)
        if holds(said, reference) if number is None else number in numbers(said):
            return 1.0
    return 0.0


def _choice(answer: str, prompt: Prompt) -> float:
    return float(chosen(answer, prompt.choices) == prompt.references[0])


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


@final
class _Words:
    """The tokenizer that ROUGE-L is given: the library's own knows ASCII alone."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())
