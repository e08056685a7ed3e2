"""One message of a conversation, in any of the forms that people have, becomes a turn on its way."""

from collections.abc import Mapping
from typing import Any

from hpa_merge.records.fields import Fields, is_empty, json_name, quoted
from hpa_merge.records.labels import is_trained, of_message
from hpa_merge.records.layouts.tools import calls_of
from hpa_merge.records.media import KINDS, read_media, take_media
from hpa_merge.records.names import MEDIA_NAMES, fold
from hpa_merge.records.places import Draft, Place
from hpa_merge.records.sample import Media, MediaKind

__all__ = ["ROLES", "read_message"]

ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "usr"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "model", "bot", "ai", "chatgpt", "gpt4", "bing", "bard", "claude"), "assistant"
    ),
    "system": "system",
    "developer": "developer",
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "function_call"),
}
"""What the speakers of conversations are called, by the role that chat templates know."""

ROLE_NAMES = ("role", "from", "speaker", "author")
CONTENT_NAMES = ("content", "value", "text", "parts", "utterance")
REASONING = ("reasoning_content", "reasoning", "thinking")

_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
_MEDIA_TYPES: dict[str, MediaKind] = {
    **{kind: kind for kind in KINDS},
    **{f"{kind}_url": kind for kind in KINDS},
    **{f"input_{kind}": kind for kind in KINDS},
}


def read_message(record: Fields, item: Any, number: int, unit: str = "message") -> list[Draft]:
    """The turn of one message; two of an object that holds both a user's and an assistant's text.

    Args:
        record: of which the message is part.
        unit: what messages call it, ``message`` or ``turn``.

    Raises:
        CalibrationError: it has no known role, or no content that can be read.
    """
    where = f"{unit} {number}"
    if not isinstance(item, Mapping):
        raise record.error(_no_role(where, unit))
    fields = record.within(item, where)
    name = fields.filled(*ROLE_NAMES)
    if name is None:
        return _both(fields, where, unit)
    said = fields.take(name)
    role = ROLES.get(fold(said)) if isinstance(said, str) else None
    if role is None:
        raise fields.error(f'{where} is not from a known speaker: "{fields.given(name)}" is one of {quoted(ROLES)}.')
    if role == "function_call":
        given = _content_name(fields)
        return [Draft("assistant", [], tool_calls=calls_of(fields, fields.take(given) if given else None, given or ""))]
    draft = Draft(role, [], good=of_message(fields, role), trained=is_trained(fields))
    if role == "assistant":
        for given in ("tool_calls", "function_call"):
            if fields.filled(given):
                draft.tool_calls += calls_of(fields, fields.take(given), given)
        draft.reasoning = fields.optional_text(*REASONING)
    elif role == "tool":
        draft.tool_call_id = fields.optional_text("tool_call_id", "call_id")
    draft.name = fields.optional_text("name", "tool_name")
    given = _content_name(fields)
    value = fields.take(given) if given else None
    if is_empty(value) and role == "assistant" and fields.filled("refusal"):
        value = fields.text("refusal")
    draft.media = take_media(fields)
    if value is None and not draft.media and role != "assistant":
        raise fields.error(_no_content(where, unit, value))
    results: list[Draft] = []
    draft.parts = _parts(fields, value, where, unit, draft, results)
    return [*results, draft] if draft.parts or draft.media or not results else results


def _both(fields: Fields, where: str, unit: str) -> list[Draft]:
    """``{"human": "…", "assistant": "…"}``: a question and its answer in one object, or one of them."""
    drafts = []
    order = fields.folded()
    last = -1
    for role in ("system", "user", "assistant"):
        said = {"user": ("input",), "assistant": ("output",)}.get(role, ())  # Capybara
        name = fields.filled(*(each for each, known in ROLES.items() if known == role), *said)
        if name is not None:
            if order.index(name) < last:
                raise fields.error(
                    f"{where} has an answer before what is asked, and the order is not known: write each as "
                    '{"role": "user", "content": "…"}.'
                )
            last = order.index(name)
            drafts.append(Draft(role, [fields.text(name)]))
    if not drafts:
        raise fields.error(_no_role(where, unit))
    return drafts


def _content_name(fields: Fields) -> str | None:
    return fields.filled(*CONTENT_NAMES) or next((name for name in CONTENT_NAMES if name in fields), None)


def _parts(
    fields: Fields, value: Any, where: str, unit: str, draft: Draft, results: list[Draft]
) -> list[str | Media | Place]:
    """The parts of a content: one text, or an array of texts and media.

    Args:
        draft: whose calls and thoughts are put into it, where parts hold them.
        results: where the turns of tools are put, whose results stand in Anthropic's user messages.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise fields.error(_no_content(where, unit, value))
    parts: list[str | Media | Place] = []
    for number, item in enumerate(value, start=1):
        if isinstance(item, str):
            parts.append(item)
        elif isinstance(item, Mapping):
            part = fields.within(item, f"part {number} of {where}")
            if part.peek("type") == "tool_result":
                part.take("type")
                said = _parts(part, part.take("content"), part.where, "message", draft, results)
                results.append(Draft("tool", said, tool_call_id=part.optional_text("tool_use_id")))
            else:
                parts += _part(part, where, draft)
        else:
            raise fields.error(_no_part(where))
    return parts


def _part(part: Fields, where: str, draft: Draft) -> list[str | Media | Place]:
    kind = part.take("type")
    if kind in _TEXT_TYPES or (kind is None and part.filled("text")):
        name = part.filled("text", "refusal", "content")
        value = part.take(name) if name else part.take("text")
        if not isinstance(value, str):
            raise part.error(_no_part(where))
        return [value]
    if kind == "thinking" and draft.role == "assistant":
        thoughts = (draft.reasoning, part.optional_text("thinking", "text"))
        draft.reasoning = "\n".join(each for each in thoughts if each)
        part.pass_over("signature")
        return []
    if kind == "tool_use" and draft.role == "assistant":
        call = {"id": part.take("id"), "name": part.take("name"), "arguments": part.take("input")}
        draft.tool_calls += calls_of(part, call, "input")
        return []
    found = _MEDIA_TYPES.get(kind) if isinstance(kind, str) else None
    if kind is None:
        found = next((each for each in KINDS if part.filled(*MEDIA_NAMES[each])), None)
    if found is None:
        raise part.error(_no_part(where, kind))
    own = (found, f"{found}_url", f"input_{found}", "source", "path", "url", "file", *MEDIA_NAMES[found])
    if (name := part.filled(*own)) is not None:
        return list(read_media(part, part.take(name), found, name))
    if (name := part.filled("data", "bytes", "base64")) is not None:
        return list(read_media(part, {name: part.take(name)}, found, name))
    return [Place(found)]


def _no_role(where: str, unit: str) -> str:
    shown = '{"from": "human", "value": "…"}' if unit == "turn" else '{"role": "user", "content": …}'
    return f"{where} has no role: write it as {shown}."


def _no_content(where: str, unit: str, value: Any) -> str:
    if unit == "turn":
        return f'{where} has no value: write it as {{"from": "human", "value": "…"}}.'
    return f"{where} has {json_name(value)} for content: give a string or an array of text and image parts."


def _no_part(where: str, kind: Any = None) -> str:
    of_type = f' of type "{kind:.40}"' if isinstance(kind, str) else ""
    return (
        f"{where} has a part{of_type} that is no text, image, video or sound: "
        'write {"type": "text", "text": …} or {"type": "image", "image": …}.'
    )
