"""Plain text and token ids: what is fed is what the record has."""

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields
from hpa_merge.records.labels import read_labels
from hpa_merge.records.media import media_field

__all__ = ["read_ids", "read_text"]


def read_ids(fields: Fields) -> list[Example]:
    """``{"input_ids": [1, 2]}``; its mask and its labels are the tokenizer's, and carry nothing more.

    Raises:
        CalibrationError: they are no token ids.
    """
    value = fields.take("input_ids")
    if not isinstance(value, list) or not value or not all(type(item) is int and 0 <= item < 2**31 for item in value):
        raise fields.error('"input_ids" is not an array of token ids: give one or more whole numbers from 0.')
    fields.pass_over("attention_mask", "labels", "token_type_ids", "position_ids", "special_tokens_mask")
    safe_prompt, good = read_labels(fields, answered=True)
    return [Example(fields.reading.source, input_ids=tuple(value), safe_prompt=safe_prompt, good_answer=good)]


def read_text(fields: Fields) -> list[Example]:
    """``{"text": "…"}``, kept as it is.

    Raises:
        CalibrationError: a medium stands next to it, so that it is a prompt or an answer.
    """
    if (media := media_field(fields)) is not None:
        raise fields.error(
            f'"text" stands next to {fields.named(media)}, and may be the prompt or the answer: say which with '
            "--map prompt=text or --map answer=text, and have the other in the record too."
        )
    text = fields.text("text")
    safe_prompt, good = read_labels(fields, answered=True)
    return [Example(fields.reading.source, text=text, safe_prompt=safe_prompt, good_answer=good)]
