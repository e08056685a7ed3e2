"""What a record says of safety: of its prompt, and of its answer."""

import re
from typing import Any

from hpa_merge.records.fields import Fields, option, quoted
from hpa_merge.records.names import BAD, GOOD

__all__ = ["is_trained", "meaning", "of_message", "read_labels"]

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

OF_MESSAGE = (*(name for name in EITHER if name != "label"), "toxic", "is_toxic", "is_safe")
"""Labels of the message that has them."""

TRAINED = ("weight", "loss", "loss_weight", "train", "trainable", "training", "is_trained")
MASKED = ("mask", "masked", "is_masked", "ignore_loss", "no_loss")
"""Whether a message is learnt, in chats for training: true of those that are, and of those that are not."""

_OF_BAD = re.compile(r"unsafe|(?<!un)harm(?!less)|malicious|toxic")
"""In a label's name: it is true of what is bad."""
_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


def read_labels(fields: Fields, answered: bool) -> tuple[bool | None, bool | None]:
    """Whether the record calls its prompt safe, and its answer; None where it says nothing.

    Args:
        answered: whether the record has an answer.

    Raises:
        CalibrationError: a label has a value that is not understood, or may mean two things.
    """
    prompt = _first(fields, PROMPT_LABELS)
    if not answered:
        prompt = _without_answer(fields, prompt)
    answer = _first(fields, ANSWER_LABELS)
    if (wanted := _first(fields, WANTED_LABELS)) is not None:
        answer = wanted and answer is not False
    if answered and (wanted := _label_of_pair(fields)) is not None:
        answer = wanted and answer is not False
    if fields.reading.purpose == "safety" and answered and fields.filled(*REFUSAL_LABELS):
        refused = _first(fields, REFUSAL_LABELS)
        answer = False if refused is False else answer
    fields.pass_over(*REFUSAL_LABELS)
    if not answered and prompt is None:
        prompt = _either(fields)
    return prompt, answer


def of_message(fields: Fields, role: str) -> bool | None:
    """Whether a message calls itself safe; None where it says nothing.

    Raises:
        CalibrationError: a label has a value that is not understood.
    """
    if role not in ("user", "assistant"):
        return None
    return _first(fields, (*OF_MESSAGE, *(ANSWER_LABELS[1:] if role == "assistant" else PROMPT_LABELS)))


def is_trained(fields: Fields) -> bool:
    """Whether a message is one that a model learns; its marks are passed over."""
    learnt = all(str(fields.peek(name)).casefold() not in _FALSE for name in TRAINED) and all(
        str(fields.peek(name)).casefold() not in _TRUE for name in MASKED
    )
    fields.pass_over(*(name for name in (*TRAINED, *MASKED) if isinstance(fields.peek(name), int | float)))
    return learnt


def _without_answer(fields: Fields, prompt: bool | None) -> bool | None:
    """What ``is_safe`` says where there is no answer: it is the prompt's.

    Raises:
        CalibrationError: a label is an answer's by its name.
    """
    name = fields.filled(*(each for each in ANSWER_LABELS if each != "is_safe"), *WANTED_LABELS)
    if name is not None and prompt is None:
        given, value = option(fields.given(name)), fields.peek(name)
        if isinstance(value, str) and len(value.split()) > 1:
            raise fields.error(
                f"{fields.named(name)} holds a text, and may be an answer or a label of one: say that it is the answer "
                f"with --map answer={given}, or pass it over with --ignore-field {given}."
            )
        raise fields.error(
            f"{fields.named(name)} is a label of an answer, and the record has none: add the answer, say that it is "
            f"the prompt's with --map unsafe_prompt={given} or --map safe_prompt={given}, or pass it over with "
            f"--ignore-field {given}."
        )
    said = _first(fields, ("is_safe",))
    return prompt if said is None else said and prompt is not False


def _label_of_pair(fields: Fields) -> bool | None:
    """What a ``label`` of true or false says of an answer: next to TRL's prompt and completion that it is wanted.

    Raises:
        CalibrationError: in a safety set it stands next to others, where moderation sets call what is harmful true.
    """
    value, known = fields.peek("label"), fields.known()
    pair = "completion" in known and not fields.filled("completion")
    yes_no = str(value).strip().casefold() in (("true", "false", "1", "0") if pair else ("true", "false"))
    plain = "text" in known and "text" not in fields  # whose label may be any class
    if not yes_no or (plain and fields.reading.purpose == "task"):
        return None
    if fields.reading.purpose != "task" and not pair:
        name = option(fields.given("label"))
        raise fields.error(
            f"{fields.named('label')} is {str(value).casefold()} and has two readings, an answer that is wanted (KTO) "
            f"or one that is harmful (moderation): say which with --map kto_tag={name} or --map unsafe_answer={name}."
        )
    return meaning(fields, "label", fields.take("label"))


def meaning(fields: Fields, name: str, value: Any) -> bool:
    """Whether a label says that something is good.

    Raises:
        CalibrationError: its value is not understood.
    """
    said = str(value).strip().casefold().replace(" ", "_").replace("-", "_")
    if said in GOOD or said in BAD:
        return said in GOOD
    if said in _TRUE or said in _FALSE:
        return (said in _TRUE) != bool(_OF_BAD.search(name))
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
        if fields.filled(name) and (words in GOOD or words in BAD or (name != "label" and isinstance(value, bool))):
            said.append(meaning(fields, name, fields.take(name)))
    return all(said) if said else None
