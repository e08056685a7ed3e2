"""Turns on their way: where the media of a record, or of a message, stand in its texts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, final

from hpa_merge.records.fields import Fields
from hpa_merge.records.media import KINDS, kind_of_file, read_media
from hpa_merge.records.sample import Media, MediaKind, Turn

__all__ = ["PLACEHOLDER", "Draft", "Place", "finish"]

PLACEHOLDER = "<image>"
"""Marks an image's place inside a text, in LLaVA's files and all that came after them."""

_MARK = {
    kind: re.compile(rf"<{kind}>|<{kind}[ _](\d{{1,2}})>|<\|{kind}_(\d{{1,2}})\|>", re.IGNORECASE) for kind in KINDS
}
_INLINE = re.compile(r"<(img|image|video|audio)>([^<>\n]{1,4096})</\1>")
_CLOSED = {kind: re.compile(rf"</{kind}\s*>", re.IGNORECASE) for kind in KINDS}
_OWN = re.compile(
    r"<\|(?:image|video|audio)(?:_pad|_soft_token)?\|>|<\|vision_start\|>|<ImageHere>|<IMG_CONTEXT>|<start_of_image>"
    r"|<image_soft_token>|\[IMG\]|<\|AUDIO\|>|<\|VIDEO\|>|<\|IMAGE\|>"
)
_BOXES = re.compile(r"<(bbox|ref-object)>")
_WRITTEN = re.compile(
    r"\s*(<\|im_start\|>|<s>|\[INST\]|<\|start_header_id\|>|<\|begin_of_text\|>|<start_of_turn>|<\|user\|>|<bos>"
    r"|<\|start\|>|<｜User｜>|<\|turn>|### Instruction:|### Human:|USER: (?=.*ASSISTANT:))",
    re.DOTALL,
)


@final
@dataclass(frozen=True)
class Place:
    """Where a medium of the record has still to be put."""

    kind: MediaKind


@final
@dataclass
class Draft:
    """A turn on its way: as :class:`Turn`, with places in its parts, and media that are this message's own.

    Attributes:
        good: whether the message calls itself safe; None where it says nothing.
        trained: False where the message says that a model does not learn it.
    """

    role: str
    parts: list[str | Media | Place]
    media: dict[MediaKind, list[Media]] = field(default_factory=dict)
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str = ""
    name: str = ""
    reasoning: str = ""
    good: bool | None = None
    trained: bool = True


def finish(fields: Fields, drafts: Sequence[Draft], media: Mapping[MediaKind, list[Media]]) -> tuple[Turn, ...]:
    """Put media into their places, or in front of the first user turn where none is marked; check the turns.

    Args:
        fields: of the record, for messages.
        media: the record's own, in order.

    Raises:
        CalibrationError: there are more or fewer places than media, or a turn is empty.
    """
    for number, draft in enumerate(drafts, start=1):
        _check_texts(fields, draft, number)
        if draft.role != "assistant":
            draft.parts = [part for each in draft.parts for part in _inline(fields, each)]
        if draft.media:
            for kind, own in draft.media.items():
                _put(fields, [draft], kind, own)
    if any(media.values()) or any(not isinstance(part, str) or "<" in part for each in drafts for part in each.parts):
        _place(fields, drafts, media)
    turns = []
    for number, draft in enumerate(drafts, start=1):
        kept = tuple(
            part for part in draft.parts if isinstance(part, Media) or (isinstance(part, str) and part.strip())
        )
        if not kept and draft.role != "system" and not draft.tool_calls:
            # an empty system turn is a choice: it keeps a template's default prompt out
            raise fields.error(f"turn {number} ({draft.role}) is empty: give it a text or remove the sample.")
        turns.append(Turn(draft.role, kept, draft.tool_calls, draft.tool_call_id, draft.name, draft.reasoning))
    return tuple(turns)


def _place(fields: Fields, drafts: Sequence[Draft], media: Mapping[MediaKind, list[Media]]) -> None:
    """Put the record's own media; LLaVA's files of videos mark a video by ``<image>``."""
    marked = {
        kind: any(part == Place(kind) or _marks(part, kind) for each in drafts for part in each.parts) for kind in KINDS
    }
    as_image = bool(media.get("video")) and not media.get("image") and marked["image"] and not marked["video"]
    for kind in KINDS:
        if kind == "video" and as_image:
            _put(fields, drafts, kind, media.get(kind, []), marked="image")
        elif kind != "image" or not as_image:
            _put(fields, drafts, kind, media.get(kind, []))


def _put(
    fields: Fields, drafts: Sequence[Draft], kind: MediaKind, media: list[Media], marked: MediaKind | None = None
) -> None:
    """Put the media of one kind; where there are none, check that no place is left for one."""
    mark = marked or kind
    parts = [(draft, part) for draft in drafts for part in draft.parts]
    places = sum(part == Place(mark) for _, part in parts)
    asked = sum(len(_marks(part, mark)) for draft, part in parts if draft.role != "assistant")
    said = sum(len(_marks(part, mark)) for draft, part in parts if draft.role == "assistant")
    numbers = [n for draft, part in parts if draft.role != "assistant" for n in _marks(part, mark) if n]
    users = [draft for draft in drafts if draft.role == "user"] or list(drafts)
    if numbers:
        if set(numbers) != set(range(1, len(media) + 1)) or len(numbers) != places + asked:
            raise _mismatch(fields, kind, max(numbers), len(media))
        spoken: tuple[str, ...] = ("assistant",)
        queue = [media[number - 1] for number in numbers]
    elif not places + asked and (not said or said != len(media)):
        standing = [part for _, part in parts if isinstance(part, Media) and part.kind == kind]
        if standing and media and standing != media:
            raise _mismatch(fields, kind, 0, len(media))
        if not standing and media:
            front = sum(1 for _ in takewhile(lambda part: isinstance(part, Media), users[0].parts))
            users[0].parts[front:front] = media
        return
    elif places + asked == len(media):
        spoken, queue = ("assistant",), media
    elif places + asked + said == len(media):
        spoken, queue = (), media
    else:
        raise _mismatch(fields, kind, places + asked, len(media))
    waiting = iter(queue)
    for draft in drafts:
        draft.parts = [
            next(waiting) if part == Place(mark) else part
            for each in draft.parts
            for part in ([each] if draft.role in spoken else _split(each, mark))
        ]


def _mismatch(fields: Fields, kind: MediaKind, places: int, count: int) -> Exception:
    one, many = ("sound", "sounds") if kind == "audio" else (kind, f"{kind}s")
    article = "an" if kind == "image" else "a"
    return fields.error(
        f"the turns mark a place for {article} {one} {places} times, but the {many} number {count}: "
        f'write one "<{kind}>" or one {{"type": "{kind}"}} for each {one} of the sample.'
    )


def _marks(part: object, kind: MediaKind) -> list[int]:
    """The marks in a text, each by its number or 0; none where the text closes the tag, as markup does."""
    if not isinstance(part, str) or _CLOSED[kind].search(part):
        return []
    return [int(found[1] or found[2] or 0) for found in _MARK[kind].finditer(part)]


def _split(part: str | Media | Place, kind: MediaKind) -> list[str | Media | Place]:
    """The pieces of a text with a place for each mark; white space next to a mark goes with it."""
    if not isinstance(part, str) or not _marks(part, kind):
        return [part]
    parts: list[str | Media | Place] = []
    begin = 0
    for found in _MARK[kind].finditer(part):
        parts += [part[begin : found.start()].strip(), Place(kind)]
        begin = found.end()
    return [piece for piece in (*parts, part[begin:].strip()) if piece]


def _inline(fields: Fields, part: str | Media | Place) -> Iterator[str | Media | Place]:
    """A text with Qwen-VL's ``<img>a.png</img>`` read as media; another tag only around what is a file's name."""
    if not isinstance(part, str):
        yield part
        return
    begin = 0
    for found in _INLINE.finditer(part):
        tag, name = found[1], found[2].strip()
        kind: MediaKind = "video" if tag == "video" else "audio" if tag == "audio" else "image"
        if tag != "img" and kind_of_file(name) != kind:
            continue
        if before := part[begin : found.start()].strip():
            yield before
        yield from read_media(fields, name, kind, f"<{tag}>")
        begin = found.end()
    rest = part[begin:]
    if rest.strip() or not begin:
        yield rest.strip() if begin else rest


def _check_texts(fields: Fields, draft: Draft, number: int) -> None:
    """Check that no text has a chat template's or a model's own tokens: they would be fed as such.

    Raises:
        CalibrationError: one has.
    """
    for part in draft.parts:
        if isinstance(part, str) and (found := _BOXES.search(part)) and fields.filled("objects"):
            raise fields.error(
                f"turn {number} ({draft.role}) has {found[0]}, which ms-swift fills from {fields.named('objects')}: "
                "write the object's name, or its box as your model writes one, in its place."
            )
        if not isinstance(part, str) or draft.role == "assistant":
            continue
        if found := _OWN.search(part):
            raise fields.error(
                f"turn {number} ({draft.role}) has {found[0]}, which is one model's own token for a medium: write "
                f'"<image>", "<video>" or "<audio>" where one stands, and name its file.'
            )
        if found := _WRITTEN.match(part):
            raise fields.error(
                f"turn {number} ({draft.role}) begins with {found[1].strip()}, so a chat template is in it already: "
                'give what was said alone, or prompt and answer as one "text".'
            )
