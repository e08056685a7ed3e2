"""What a record says of safety: of its prompt, and of its answer."""

from typing import Any

from hpa_merge.records.fields import Fields, quoted

__all__ = ["meaning", "read_labels"]

PROMPT_LABELS = ("prompt_label", "prompt_harm_label", "prompt_safety", "is_prompt_safe", "prompt_safe", "safe_prompt")
ANSWER_LABELS = (
    *("is_safe", "is_response_safe", "response_safe", "response_label", "response_harm_label", "response_safety"),
    *("safe_response", "is_answer_safe", "answer_label"),
)
WANTED_LABELS = ("kto_tag",)
REFUSAL_LABELS = ("response_refusal_label", "is_refusal", "refusal_label")
EITHER = (
    "label",
    "safety",
    "safe",
    "is_harmful",
    "harmful",
    "unsafe",
    "is_unsafe",
    "is_malicious",
    "malicious",
    "is_benign",
)
"""Labels that are the prompt's where there is no answer; next to an answer it is unclear whose they are."""

_REVERSED = ("is_harmful", "harmful", "unsafe", "is_unsafe", "is_malicious", "malicious")
_GOOD = (
    "safe",
    "unharmful",
    "harmless",
    "benign",
    "not_harmful",
    "non_harmful",
    "true",
    "yes",
    "1",
    "refusal",
    "desirable",
)
_BAD = ("unsafe", "harmful", "toxic", "malicious", "adversarial", "false", "no", "0", "compliance", "undesirable")


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
        answer = wanted if answer is None else answer and wanted
    label = fields.peek("label")
    if answered and (isinstance(label, bool) or str(label).casefold() in ("true", "false")):  # TRL's KTO
        wanted = meaning(fields, "label", fields.take("label"))
        answer = wanted if answer is None else answer and wanted
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
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    said = str(value).strip().casefold().replace(" ", "_").replace("-", "_")
    if said in _GOOD:
        return True
    if said in _BAD:
        return False
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
        if fields.filled(name) and (isinstance(value, bool) or (isinstance(value, str) and not value.isdigit())):
            good = meaning(fields, name, fields.take(name))
            said.append(good != (name in _REVERSED) if isinstance(value, bool) or _plain(value) else good)
    return all(said) if said else None


def _plain(value: Any) -> bool:
    return str(value).strip().casefold() in ("true", "false", "yes", "no")
