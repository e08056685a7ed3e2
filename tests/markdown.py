"""Markdown as a code host and a reader take it: links, anchors, and the commands of console blocks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

AWAITED = re.compile(r"<!-- awaits .*?<!-- end -->", re.DOTALL)
"""What a page shows of commands that are not there yet."""


class Command(NamedTuple):
    """A command of a console block, what it is said to print, and its exit status."""

    line: str
    printed: str
    status: int


def prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def links(path: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^()\s]+)\)", prose(path))


def anchors(path: Path) -> set[str]:
    """The anchors that a code host gives a page's headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = "".join(c for c in plain if c.isalnum() or c in " -_").strip().replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def commands(path: Path) -> Iterator[Command]:
    """The commands of a page's console blocks, in their order; lines that are open go on."""
    text = AWAITED.sub("", path.read_text(encoding="utf-8"))
    for block in re.findall(r"^```console\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        for said in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = said.splitlines(keepends=True)
            line = lines.pop(0)
            while line.endswith("\\\n") or line.count('"') - line.count('\\"') & 1:
                line += lines.pop(0)
            ending = re.fullmatch(r"\[exit status (\d+)\]\n", lines[-1]) if lines else None
            yield Command(line, "".join(lines[:-1] if ending else lines), int(ending[1]) if ending else 0)
