"""What a record says of safety: of its prompt, and of its answer."""

from typing import Any

from hpa_merge.records.fields import Fields, quoted

__all__ = ["meaning", "read_labels"]

PROMPT_LABELS = (
    *("prompt_label", "prompt_harm_label", "prompt_safety", "is_prompt_safe", "prompt_safe", "safe_prompt"),
    *("unsafe_prompt", "is_prompt_unsafe", "is_prompt_harmful", "prompt_harmful"),
)
ANSWER_LABELS = (
    *("is_safe", "is_response_safe", "response_safe", "response_label", "response_harm_label", "response_safety"),
    *("safe_response", "is_answer_safe", "answer_label", "safe_answer"),
    *("unsafe_answer", "is_response_unsafe", "is_response_harmful", "response_harmful", "harmful_response"),
)
WANTED_LABELS = ("kto_tag",)
REFUSAL_LABELS = ("response_refusal_label", "is_refusal", "refusal_label", "refused")
EITHER = (
    *("safety", "safe", "is_benign", "harmful", "is_harmful", "unsafe", "is_unsafe", "malicious", "is_malicious"),
    "label",
)
"""Labels that are the prompt's where there is no answer; next to an answer it is unclear whose they are."""

_OF_BAD = ("unsafe", "harmful", "malicious")
"""In a label's name: it is true of what is bad."""
_GOOD = ("safe", "unharmful", "harmless", "benign", "not_harmful", "non_harmful", "refusal", "desirable")
_BAD = ("unsafe", "harmful", "toxic", "malicious", "adversarial", "compliance", "undesirable")
_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


def read_labels(fields: Fields, answered: bool) -> tuple[bool | None, bool | None]:
    """Whether the record calls its prompt safe, and its answer; None where it says nothing.

    Args:
        answered: whether the record has an answer.

    Raises:
        CalibrationError: a label has a value that is not understood.
    """
    prompt = _first(fields, PROMPT_LABELS)
    answer = _first(fields, ANSWER_LABELS)
    if (wanted := _first(fields, WANTED_LABELS)) is not None:
        answer = wanted and answer is not False
    label = fields.peek("label")
    if answered and (isinstance(label, bool) or str(label).casefold() in ("true", "false")):  # TRL's KTO
        answer = meaning(fields, "label", fields.take("label")) and answer is not False
    if fields.reading.purpose == "safety" and answered and fields.filled(*REFUSAL_LABELS):
        refused = _first(fields, REFUSAL_LABELS)
        answer = False if refused is False else answer
    fields.pass_over(*REFUSAL_LABELS)
    if not answered:
        if prompt is None:
            prompt = _either(fields)
        for name in ANSWER_LABELS:
            fields.pass_over(name)
    return prompt, answer


def meaning(fields: Fields, name: str, value: Any) -> bool:
    """Whether a label says that something is good.

    Raises:
        CalibrationError: its value is not understood.
    """
    said = str(value).strip().casefold().replace(" ", "_").replace("-", "_")
    if said in _GOOD or said in _BAD:
        return said in _GOOD
    if said in _TRUE or said in _FALSE:
        return (said in _TRUE) != any(word in name and f"un{word}" not in name for word in _OF_BAD)
    raise fields.error(
        f"{fields.named(name)} is {str(value)!r:.40}, and a label of safety is a boolean or one of "
        f"{quoted(('safe', 'unsafe', 'harmful', 'unharmful'))}: change it, or pass it over with --ignore-field."
    )


def _first(fields: Fields, names: tuple[str, ...]) -> bool | None:
    """What the labels say together: False where one of them does."""
    said = [meaning(fields, name, fields.take(name)) for name in names if fields.filled(name)]
    return all(said) if said else None


def _either(fields: Fields) -> bool | None:
    said = []
    for name in EITHER:
        value = fields.peek(name)
        words = str(value).strip().casefold()
        if fields.filled(name) and (words in _GOOD or words in _BAD or (name != "label" and isinstance(value, bool))):
            said.append(meaning(fields, name, fields.take(name)))
    return all(said) if said else None
