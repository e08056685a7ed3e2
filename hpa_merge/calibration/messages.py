"""A sample as the messages that its chat template takes, and what the template would leave out of them.

Templates differ in what they take: a message's content as one string or as parts, a call's arguments as an object or as
JSON. And a template that has no place for something often says nothing. So every sample has a twin of the same shape
whose texts are markers, and what the template writes of the twin tells both.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, final

from hpa_merge.calibration.templates import Template
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample, Turn

__all__ = ["Messages", "twin"]

Kind = Literal["text", "tool call", "tools", "reasoning", "speaker"]

_THOUGHTS = re.compile(r"(</?think(?:ing)?>)")
_REPR = ("'type': 'text'", '"type": "text"')
_EARLIER = "the chat template leaves out what the assistant thought in earlier turns, as the model's own convention is"
_SPEAKERS = "the chat template does not write the names of speakers"
_CHANGED = "the chat template writes a text in other words or signs than the sample has"


@final
@dataclass(frozen=True)
class Form:
    """How a template takes messages.

    Attributes:
        parts: the roles whose content is an array of parts; the content of others is one string.
        as_json: whether a call's arguments are JSON in a string.
    """

    parts: frozenset[str] = frozenset()
    as_json: bool = False


@final
@dataclass(frozen=True)
class Mark:
    """A marker in a twin: what it stands for, and in which turn, counted from 0."""

    kind: Kind
    turn: int
    word: str


@final
@dataclass(frozen=True)
class Verdict:
    """What a template does with samples of one shape.

    Attributes:
        form: how it takes them.
        refusal: what it leaves out and must not, as the end of a sentence; empty where that is nothing.
        notes: what it leaves out on purpose, a clause each.
    """

    form: Form
    refusal: str = ""
    notes: tuple[str, ...] = ()


@final
class Messages:
    """Writes samples with one template."""

    def __init__(self, template: Template, token: Callable[[Media], str], *, prefer_parts: bool) -> None:
        """
        Args:
            token: what stands for a medium in a content that is one string.
            prefer_parts: content is given as parts where the template takes both, as processors' users do.
        """
        self._template = template
        self._token = token
        self._prefer_parts = prefer_parts
        self._known: dict[object, Verdict] = {}

    def write(self, sample: Sample, *, reply: bool = False) -> tuple[str, tuple[str, ...]]:
        """The sample as one text, and notes on what the template leaves out on purpose.

        Raises:
            CalibrationError: the template leaves out what it must not.
            Exception: whatever the template raises.
        """
        shape = (_shape(sample), reply)
        if shape not in self._known:
            self._known[shape] = self._judge(sample, reply)
        verdict = self._known[shape]
        if verdict.refusal:
            raise CalibrationError(f"{sample.source}: the checkpoint's chat template leaves {verdict.refusal}.")
        text = self._render(sample, verdict.form, reply)
        return text, (*verdict.notes, *([] if _holds(text, sample) else [_CHANGED]))

    def _render(self, sample: Sample, form: Form, reply: bool) -> str:
        messages = [_message(turn, form, self._token) for turn in sample.turns]
        return self._template(messages, tools=sample.tools, reply=reply)

    def _judge(self, sample: Sample, reply: bool) -> Verdict:
        """Try the forms on the sample's twin; the first that loses least is the one.

        Raises:
            Exception: what the template raises with the preferred form, where it raises with each.
        """
        marked, marks = twin(sample)
        best: tuple[tuple[int, int], Verdict] | None = None
        failure: Exception | None = None
        for form in self._forms(sample):
            try:
                text = self._render(marked, form, reply)
            except Exception as error:  # any error of a template means: not this way
                failure = failure or error
                continue
            if any(sign in text for sign in _REPR):
                lost = marks
            else:
                written = text.casefold()
                lost = [mark for mark in marks if mark.word not in written]
            media = self._lost_media(marked, form, reply, text)
            found = _verdict(sample, form, lost, media, reply)
            losses = sum(mark.kind in ("text", "tool call", "tools") for mark in lost), len(media)
            if best is None or losses < best[0]:
                best = losses, found
            if not any(losses):
                break
        if best is None:
            assert failure is not None
            raise failure
        return best[1]

    def _forms(self, sample: Sample) -> Iterator[Form]:
        roles = list(dict.fromkeys(turn.role for turn in sample.turns))
        calls = any(turn.tool_calls for turn in sample.turns)
        for as_json in (False, True)[: 1 + calls]:
            uniform = [(self._prefer_parts,) * len(roles), (not self._prefer_parts,) * len(roles)]
            mixed = product((self._prefer_parts, not self._prefer_parts), repeat=min(len(roles), 4))
            for chosen in dict.fromkeys([*uniform, *mixed]):
                yield Form(frozenset(role for role, parts in zip(roles, chosen, strict=False) if parts), as_json)

    def _lost_media(self, marked: Sample, form: Form, reply: bool, text: str) -> list[str]:
        """The kinds of media of which one could be taken out without any change to what is written."""
        lost: list[str] = []
        for number, turn in enumerate(marked.turns):
            for place, part in enumerate(turn.parts):
                if isinstance(part, Media) and turn.role in form.parts:
                    without = replace(turn, parts=turn.parts[:place] + turn.parts[place + 1 :])
                    turns = (*marked.turns[:number], without, *marked.turns[number + 1 :])
                    if self._render(replace(marked, turns=turns), form, reply) == text:
                        lost.append(part.kind)
        return lost


def twin(sample: Sample) -> tuple[Sample, list[Mark]]:
    """A sample of the same shape whose texts are markers, and these; thoughts within a text have their own."""
    marks: list[Mark] = []

    def mark(kind: Kind, turn: int) -> str:
        word = f"zq{len(marks):04d}qz"
        marks.append(Mark(kind, turn, word))
        return word

    def text(given: str, turn: int) -> str:
        pieces, thinking = _THOUGHTS.split(given), "</think" in given and not given.lstrip().startswith("<think")
        made = []
        for piece in pieces:
            if _THOUGHTS.fullmatch(piece):
                thinking = not piece.startswith("</")
            elif piece.strip():
                piece = mark("reasoning" if thinking else "text", turn)
            made.append(piece)
        return "".join(made)

    turns = [
        replace(
            turn,
            parts=tuple(text(part, number) if isinstance(part, str) else part for part in turn.parts),
            reasoning=mark("reasoning", number) if turn.reasoning else "",
            name=mark("speaker", number) if turn.name and turn.role != "tool" else turn.name,
            tool_calls=tuple(_marked_call(call, partial(mark, "tool call", number)) for call in turn.tool_calls),
        )
        for number, turn in enumerate(sample.turns)
    ]
    tools = tuple(_marked_tool(tool, partial(mark, "tools", -1)) for tool in sample.tools)
    return replace(sample, turns=tuple(turns), tools=tools), marks


def _marked_call(call: Mapping[str, Any], mark: Callable[[], str]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = {mark(): mark()} if function.get("arguments") else function.get("arguments", {})
    marked = {**function, "name": mark(), "arguments": arguments}
    return {**call, "function": marked} if "function" in call else marked


def _marked_tool(tool: Mapping[str, Any], mark: Callable[[], str]) -> dict[str, Any]:
    function = tool.get("function", tool)
    marked = {**function, "name": mark()}
    if function.get("description"):
        marked["description"] = mark()
    if function.get("parameters"):
        word = mark()
        properties = {word: {"type": "string", "description": mark()}}
        marked["parameters"] = {"type": "object", "properties": properties, "required": [word]}
    return {**tool, "function": marked} if "function" in tool else marked


def _shape(sample: Sample) -> object:
    """What a verdict depends on: everything but the texts."""

    def kind(part: str | Media) -> object:
        if isinstance(part, Media):
            return part.kind
        return tuple(
            bool(piece.strip()) if not _THOUGHTS.fullmatch(piece) else piece for piece in _THOUGHTS.split(part)
        )

    return (
        tuple(
            (
                turn.role,
                tuple(map(kind, turn.parts)),
                tuple(bool(call.get("function", call).get("arguments")) for call in turn.tool_calls),
                bool(turn.reasoning),
                bool(turn.name),
                bool(turn.tool_call_id),
            )
            for turn in sample.turns
        ),
        tuple(
            tuple(bool(tool.get("function", tool).get(name)) for name in ("description", "parameters"))
            for tool in sample.tools
        ),
    )


def _holds(written: str, sample: Sample) -> bool:
    """Whether the texts, without thoughts, stand in what was written: as they are, as JSON, or spaced otherwise."""
    spaced = " ".join(written.split()).casefold()
    for text in (text for turn in sample.turns for text in turn.texts):
        said = _THOUGHTS.split(text)[-1].strip()
        ways = (said, *(json.dumps(said, ensure_ascii=ascii_)[1:-1] for ascii_ in (False, True)))
        if not any(way in written or " ".join(way.split()).casefold() in spaced for way in ways):
            return False
    return True


def _verdict(sample: Sample, form: Form, lost: list[Mark], media: list[str], reply: bool) -> Verdict:
    """What the marks that a template does not write mean."""
    last = -1 if reply or sample.turns[-1].role != "assistant" else len(sample.turns) - 1
    notes = []
    for mark in lost:
        where = f"turn {mark.turn + 1} ({sample.turns[mark.turn].role})"
        if mark.kind == "text":
            return Verdict(form, f"out the text of {where}: {_REMEDY.format('say it in another turn')}")
        if mark.kind == "tool call":
            return Verdict(form, f"out the tool calls of {where}: {_REMEDY.format('write them into its content')}")
        if mark.kind == "tools":
            return Verdict(form, f"out the tools: {_REMEDY.format('write them into a system turn')}")
        if mark.kind == "reasoning" and mark.turn == last:
            return Verdict(form, f"out the reasoning of the answer: {_REMEDY.format('write it into its content')}")
        notes.append(_SPEAKERS if mark.kind == "speaker" else _EARLIER)
    if media:
        return Verdict(
            form,
            f"its {media[0]}s out: give the checkpoint a template that writes them, or remove the {media[0]}s",
        )
    return Verdict(form, notes=tuple(dict.fromkeys(notes)))


_REMEDY = "give a template that writes it with --chat-template, or {}"


def _message(turn: Turn, form: Form, token: Callable[[Media], str]) -> dict[str, Any]:
    """A turn as a chat template takes it; a turn that only calls tools has an empty text."""
    content: str | list[dict[str, str]]
    if turn.role in form.parts and not (turn.tool_calls and not turn.parts):
        content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": p.kind} for p in turn.parts]
    else:
        content = "\n".join(part if isinstance(part, str) else token(part) for part in turn.parts)
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.reasoning:  # transformers' own name of it, and the one that gpt-oss reads
        message |= {"reasoning_content": turn.reasoning, "thinking": turn.reasoning}
    if turn.tool_calls:
        message["tool_calls"] = [_call(call, form.as_json) for call in turn.tool_calls]
    message |= {name: value for name, value in (("tool_call_id", turn.tool_call_id), ("name", turn.name)) if value}
    return message


def _call(call: Mapping[str, Any], as_json: bool) -> dict[str, Any]:
    function = call.get("function")
    if not as_json or not isinstance(function, Mapping):
        return dict(call)
    return {**call, "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}}
