"""The layouts of records that people have: what becomes of each, as calibration sample and as prompt of a test.

The rows stand in ``layout_cases_*.py``, one file for a kind. `tests/records/test_layouts.py` writes each as a file and
reads it; `docs/data_layouts.py` makes the table of the documentation of the same rows.
"""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpa_merge.records import Example, Media, Purpose, Sample, Turn

__all__ = ["PNG", "PNG64", "Case", "render", "write_media"]

PNG64 = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR42mP4z8AARwzEcQCukw/x0F8jngAAAABJRU5ErkJggg=="
PNG = base64.b64decode(PNG64)


@dataclass(frozen=True)
class Case:
    """One layout.

    Attributes:
        name: what people call it.
        origin: where they have it from.
        records: the lines of a file in exactly that shape.
        sample: the first sample that calibration makes of it, as :func:`render` shows it; empty where there is none.
        prompt: the first prompt of a test, likewise; None: the sample without its answer.
        references, choices, category: what the first prompt has besides.
        purpose: what the file is for.
        passed: fields that are passed over by name.
        dropped: records that give no calibration sample, by reason.
        refused: the sentence that refuses it as a calibration file, without the place.
        refused_test: the same as a test file; None: as a calibration file.
        note: what the table says of it besides.
        options: ``names``, ``ignored`` of the reading.
    """

    name: str
    origin: str
    records: tuple[Any, ...]
    sample: str = ""
    prompt: str | None = None
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    category: str = ""
    purpose: Purpose = "task"
    passed: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    refused_test: str | None = None
    note: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The file, with the media that it may name next to it."""
        write_media(folder)
        path = folder / "s.jsonl"
        lines = (json.dumps(record).replace("{folder}", str(folder)) + "\n" for record in self.records)
        path.write_text("".join(lines), encoding="utf-8")
        return path


def write_media(folder: Path) -> None:
    """``a.png``, ``b.png``, ``pics/c.jpg``, ``v.mp4``, ``s.wav``."""
    (folder / "pics").mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "pics/c.jpg", "v.mp4", "s.wav"):
        (folder / name).write_bytes(PNG)  # media are opened only when they are encoded


def render(said: Sample | Example, folder: Path) -> str:
    """The turns in one line: ``user: [image a.png] | What? / assistant: Red.``"""
    if said.input_ids:
        return f"ids: {list(said.input_ids)}"
    if said.text is not None:
        return f"text: {said.text}"
    offered = [f"tools: {', '.join(tool['function']['name'] for tool in said.tools)}"] if said.tools else []
    return " / ".join([*offered, *(_turn(turn, folder) for turn in said.turns)])


def _turn(turn: Turn, folder: Path) -> str:
    thoughts = [f"(thinks {turn.reasoning})"] if turn.reasoning else []
    calls = [f"call {c['function']['name']}({json.dumps(c['function']['arguments'])})" for c in turn.tool_calls]
    named = "".join(f"<{each}>" for each in (turn.name, turn.tool_call_id) if each)
    return f"{turn.role}{named}: " + " | ".join([*thoughts, *(_part(part, folder) for part in turn.parts), *calls])


def _part(part: str | Media, folder: Path) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part.content, bytes):
        return f"[{part.kind} of {len(part.content)} bytes]"
    return f"[{part.kind} {part.content.relative_to(folder)}]"
