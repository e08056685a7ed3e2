"""Markdown as a code host and a reader take it: links, anchors, and the commands of a page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


class Block(NamedTuple):
    """The commands of a block of code, and what the next block says that they print."""

    commands: list[str]
    printed: str


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


def blocks(path: Path) -> Iterator[Block]:
    """The commands of a page, in their order."""
    text = path.read_text(encoding="utf-8")
    for block, printed in re.findall(
        r"^```sh\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, flags=re.DOTALL | re.MULTILINE
    ):
        lines, found = block.splitlines(keepends=True), []
        while lines:
            line = lines.pop(0)
            while line.endswith("\\\n") or line.replace('\\"', "").count('"') % 2:
                line += lines.pop(0)
            found.append(line.rstrip("\n"))
        yield Block(found, printed)
