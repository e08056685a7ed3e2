"""The media that a record names or holds: local files and bytes; nothing is ever fetched."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from hpa_merge.records.fields import Fields, is_empty, json_name, quoted
from hpa_merge.records.names import MEDIA_NAMES, NEUTRAL_MEDIA
from hpa_merge.records.sample import Media, MediaKind

__all__ = ["KINDS", "kind_of_file", "media_field", "read_media", "take_media"]

KINDS: tuple[MediaKind, ...] = ("image", "video", "audio")

SHOWN = 80
"""Characters of a path in a message, at most."""

_ENDINGS: dict[MediaKind, str] = {
    "image": "bmp gif jpg jpeg jp2 png ppm tif tiff webp avif heic",
    "video": "mp4 avi mov mkv webm m4v mpg mpeg",
    "audio": "wav mp3 flac ogg m4a opus aac",
}
_WORDS: dict[MediaKind, str] = {"image": "an image", "video": "a video", "audio": "a sound"}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NUMBERED = re.compile(r"(image|img|video|audio)_(\d{1,2})")
_ALL = frozenset((*NEUTRAL_MEDIA, *(name for names in MEDIA_NAMES.values() for name in names)))
_BASE64 = re.compile(
    r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR|AAAA[A-Za-z0-9+/]{2}Z0eX|SUkq|TU0AK|T2dnUw|ZkxhQ|SUQz)[A-Za-z0-9+/=_\s-]{60,}"
)
"""How the bytes of JPEG, PNG, GIF, WebP, WAV, MP4, TIFF, Ogg, FLAC and MP3 begin in base64."""


def take_media(fields: Fields) -> dict[MediaKind, list[Media]]:
    """The media that stand next to the turns of a record, or next to the text of a message.

    Raises:
        CalibrationError: one is not a local file, or two fields hold media of one kind.
    """
    found: dict[MediaKind, list[Media]] = {}
    if not any(name in _ALL or _NUMBERED.fullmatch(name) for name in fields.folded()):
        return found
    for kind in KINDS:
        names = [name for name in MEDIA_NAMES[kind] if fields.filled(name)]
        numbered = [name for name, of in _numbered(fields) if of == kind]
        if len(names) + bool(numbered) > 1:
            names = _same(fields, names + numbered)
        for name in MEDIA_NAMES[kind]:
            if name in fields and name not in names:  # empty, or the same as another
                fields.take(name)
        media = [item for name in names or numbered for item in read_media(fields, fields.take(name), kind, name)]
        if media:
            found[kind] = media
    for name in NEUTRAL_MEDIA:
        kind_of_name = _kind_of_field(fields, name)
        if kind_of_name is not None and kind_of_name not in found:
            found[kind_of_name] = read_media(fields, fields.take(name), kind_of_name, name)
    return found


def media_field(fields: Fields) -> str | None:
    """The first field that holds a medium."""
    named = [name for kind in KINDS for name in MEDIA_NAMES[kind] if fields.filled(name)]
    return next(iter([*named, *(name for name in NEUTRAL_MEDIA if _kind_of_field(fields, name))]), None)


def _kind_of_field(fields: Fields, name: str) -> MediaKind | None:
    """What a field that may hold any medium holds."""
    value = fields.peek(name)
    return kind_of_file(value) if isinstance(value, str) else None


def read_media(fields: Fields, value: Any, kind: MediaKind, name: str) -> list[Media]:
    """The media that a value names or holds: one, several, or none where it is empty.

    Args:
        value: a path, a ``file:`` or ``data:`` URL, base64, bytes, an object of such, or an array.
        name: the field that holds it, for messages.

    Raises:
        CalibrationError: it is none of these, or not a file that is there.
    """
    if is_empty(value):
        return []
    if isinstance(value, list | tuple):
        return [item for each in value for item in read_media(fields, each, kind, name)]
    if isinstance(value, bytes | bytearray):
        media = Media(kind, bytes(value))
    elif isinstance(value, str):
        media = _from_text(fields, value, kind)
    elif isinstance(value, Mapping):
        return _from_object(fields, fields.within(value, fields.named(name)), kind, name)
    else:
        raise fields.error(
            f"{_WORDS[kind]} is the path of a file, found {json_name(value)} in {fields.named(name)}: give a path in a "
            "string."
        )
    fields.reading.media.add(kind)
    return [media]


def kind_of_file(name: str) -> MediaKind | None:
    """What the ending of a file's name says it is."""
    ending = name.rsplit(".", 1)[-1].casefold()
    return next((kind for kind, endings in _ENDINGS.items() if "." in name and ending in endings.split()), None)


def _numbered(fields: Fields) -> Iterator[tuple[str, MediaKind]]:
    """The fields ``image_1``, ``image_2``, …, in the order of their numbers."""
    found = [(name, match) for name in fields.folded() if (match := _NUMBERED.fullmatch(name)) and fields.filled(name)]
    for name, match in sorted(found, key=lambda each: int(each[1][2])):
        kind = match[1]
        yield name, "video" if kind == "video" else "audio" if kind == "audio" else "image"


def _same(fields: Fields, names: list[str]) -> list[str]:
    """Of several fields with media of one kind the first, where all hold the same."""
    values = [fields.peek(name) for name in names]
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
    if any(value != values[0] for value in values):
        shown = " and ".join(fields.named(name) for name in names)
        raise fields.error(
            f"{shown} hold media of one kind: choose one with --ignore-field for the other, or write all as one array."
        )
    return names[:1]


def _from_object(fields: Fields, inner: Fields, kind: MediaKind, name: str) -> list[Media]:
    """An object that holds bytes, a path or a URL, as Hugging Face's data sets, OpenAI and Anthropic write it."""
    if inner.filled("array"):
        raise fields.error(
            f"{fields.named(name)} holds {_WORDS[kind]} as numbers, decoded already: save it as a file and give its "
            "path, or keep its bytes."
        )
    for given in ("bytes", "data", "base64"):
        if inner.filled(given):
            inner.pass_over("path", "format", "media_type", "type", "sampling_rate")
            value = inner.take(given)
            value = _decoded(fields, value, name) if isinstance(value, str) else value
            return read_media(fields, value, kind, name)
    place = inner.filled("path", "url", kind, f"{kind}_url", *NEUTRAL_MEDIA, *MEDIA_NAMES[kind])
    if place is None:
        raise fields.error(
            f'{fields.named(name)} is an object without "bytes", "path" or "url": give {_WORDS[kind]} as the path of a '
            f"file, found {quoted(inner.names())}."
        )
    inner.pass_over("type")
    return read_media(inner, inner.take(place), kind, place)


def _from_text(fields: Fields, value: str, kind: MediaKind) -> Media:
    text = value.strip()
    shown = text if len(text) <= SHOWN else text[: SHOWN - 3] + "…"
    if text[:5].casefold() == "data:":
        head, comma, body = text.partition(",")
        declared = head[5:].split(";")[0].split("/")[0].casefold()
        if not comma or declared not in (kind, "", "application"):
            raise fields.error(
                f"the {kind} {shown} is a data: URL of another kind: give a data: URL of {_WORDS[kind]}."
            )
        if head.casefold().endswith(";base64"):
            return Media(kind, _decoded(fields, unquote(body), kind))
        return Media(kind, unquote_to_bytes(body))
    if text[:5].casefold() == "file:":
        text = _path(text)
    elif _URL.match(text):
        raise fields.error(
            f"the {kind} {shown} is a URL, and URLs are never fetched: save it as a file and give its path."
        )
    elif _BASE64.match(text):
        return Media(kind, _decoded(fields, text, kind))
    folder = fields.reading.options.media_folder or fields.reading.folder
    named = kind_of_file(text)
    if named is not None and (kind == "image") != (named == "image") and not text.casefold().endswith(".gif"):
        raise fields.error(
            f"the {kind} {shown} is {_WORDS[named]} by its name: name the field by what it holds, and give the "
            "frames of a video as one file."
        )
    path = folder / text
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        exists = False
    if not exists and text.isdecimal():
        raise fields.error(
            f"the {kind} {shown} is a number, by which VLMEvalKit's tables name another row that holds it: write the "
            f"{kind} itself, or its path, into each row."
        )
    if not exists:
        raise fields.error(
            f"the {kind} {shown} is not a file in {folder}: give its path relative to that folder, or name the folder "
            "of the images with --image-folder."
        )
    return Media(kind, path)


def _path(url: str) -> str:
    """The path of a ``file:`` URL; of ``file://a.png``, as Qwen's examples write it, the relative one."""
    rest = url[len("file:") :].removeprefix("//").removeprefix("localhost")
    return unquote(re.split(r"[?#]", rest)[0])


def _decoded(fields: Fields, text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()).replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise fields.error(f"the bytes in {fields.named(name)} are not base64: write them whole.") from None
