"""A part of the model that is loaded together."""

from dataclasses import dataclass
from typing import final

__all__ = ["Unit", "inside"]


@final
@dataclass(frozen=True)
class Unit:
    """A part of the model that is loaded, run, merged and freed together.

    Attributes:
        index: its index in the order in which units are merged.
        name: its module's path.
        stack: path of its stack, if it is a block; else empty.
        block: its index ``l`` in its stack; None outside the stacks. There the depth is 0 if it runs before the text
            stack, else ``L``; the order of registration does not tell which (OPT's ``project_out``).
        blocks: the number ``L`` of blocks of its stack; outside the stacks, of the text stack.
        text: whether its stack is the text stack.
    """

    index: int
    name: str
    stack: str
    block: int | None
    blocks: int
    text: bool


def inside(path: str, parent: str) -> bool:
    """Whether a module's path is ``parent`` or lies below it; everything lies below the empty path."""
    return not parent or path == parent or path.startswith(parent + ".")
