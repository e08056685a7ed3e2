"""What a record of a data set becomes: a conversation, a text or token ids; with the media that stand in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

__all__ = ["Media", "MediaKind", "Sample", "Turn"]

MediaKind = Literal["image", "video", "audio"]


@final
@dataclass(frozen=True)
class Media:
    """An image, a video or a sound that stands in a conversation; it is decoded only when its sample is encoded.

    Attributes:
        kind: what it is.
        content: the local file, which exists; or the file's bytes, where the record holds these.
    """

    kind: MediaKind
    content: Path | bytes

    @property
    def name(self) -> str:
        """What messages call it: the path, or how many bytes the record holds."""
        return str(self.content) if isinstance(self.content, Path) else f"of {len(self.content)} bytes in the record"


@final
@dataclass(frozen=True)
class Turn:
    """What one role says: texts and media in their order.

    Attributes:
        role: ``user``, ``assistant``, ``system``, ``developer`` or ``tool``; of ``messages``, any that the record has.
        parts: texts and media; empty where the assistant only calls tools.
        tool_calls: the assistant's calls, as chat templates take them: ``{"type": "function", "function": {"name",
            "arguments"}}``, with the ``"id"`` that the record has; ``arguments`` is an object.
        tool_call_id: of a tool's turn, the call that it answers, if the record names it.
        name: of a tool's turn, the tool, if the record names it; of another turn, who speaks.
        reasoning: what the assistant thinks before it answers, where the record keeps it apart from the answer.
    """

    role: str
    parts: tuple[str | Media, ...]
    tool_calls: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    tool_call_id: str = ""
    name: str = ""
    reasoning: str = ""

    @property
    def extras(self) -> dict[str, Any]:
        """What a message of OpenAI's protocol has besides role and content; a call's arguments are JSON there."""
        calls = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            for call in self.tool_calls
        ]
        found: dict[str, Any] = {"tool_calls": calls, "tool_call_id": self.tool_call_id, "name": self.name}
        found["reasoning_content"] = self.reasoning
        return {name: value for name, value in found.items() if value}

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts that are text."""
        return tuple(part for part in self.parts if isinstance(part, str))


@final
@dataclass(frozen=True)
class Sample:
    """One sample; exactly one of ``turns``, ``text`` and ``input_ids`` is filled.

    Attributes:
        source: what messages call it: ``file:line``, with ``#2`` behind it for the second sample of a line.
        turns: a conversation; where its last turn is the assistant's, that turn is the answer.
        text: plain text, as the record has it.
        input_ids: token ids, as the record has them.
        tools: the tools that the conversation offers, each an object as chat templates take it in ``tools``.
    """

    source: str
    turns: tuple[Turn, ...] = ()
    text: str | None = None
    input_ids: tuple[int, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    @property
    def media(self) -> tuple[Media, ...]:
        """The media of all turns, in order."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, Media))

    @property
    def images(self) -> tuple[Media, ...]:
        """The images among them."""
        return tuple(media for media in self.media if media.kind == "image")
