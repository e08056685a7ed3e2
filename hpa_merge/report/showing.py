"""How a result shows itself in Python: a short ``repr``, a table in a notebook, a data frame of pandas or polars."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any, Literal

from hpa_merge.errors import ConfigError

__all__ = ["Shown"]

LIBRARIES = ("pandas", "polars")


class Shown(ABC):
    """A result with a short ``repr``, a table in notebooks and a data frame.

    A dataclass that is one is made with ``repr=False``.
    """

    @abstractmethod
    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """What it is, in a few words, and its main facts: rows of a label and a value."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Its figures: one row for each thing that was measured or decided, by column."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()[0]}>"

    def _repr_html_(self) -> str:
        """The summary, for a notebook."""
        title, facts = self.summary()
        cells = (
            f'<tr><th style="text-align:left">{escape(label)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for label, value in facts
        )
        return f"<table><caption><b>{escape(title)}</b></caption>{''.join(cells)}</table>"

    def to_frame(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """:meth:`rows` as a ``DataFrame``.

        Args:
            library: which one's; by default that of the library that is imported already, or else installed.

        Raises:
            ConfigError: it is not installed.
        """
        names = [library] if library else sorted(LIBRARIES, key=lambda name: name not in sys.modules)
        for name in names:
            try:
                frames = import_module(name)
            except ImportError:
                continue
            return frames.DataFrame(_columns(self.rows()))
        raise ConfigError(f"{' or '.join(names)} is not installed: install it, or use rows(), a list of dictionaries.")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values by column; None where a row has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
