"""Hide a library from another one that would use it if it is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["hidden"]


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Within the block, an import of the module fails, and ``find_spec`` finds none."""
    there: dict[str, ModuleType | None] = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(there)  # type: ignore[arg-type]
