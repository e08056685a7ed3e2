"""Import peft without bitsandbytes, whose layers no model here has: its import takes a second, and may fetch code."""

from hpa_merge.libraries.hiding import hidden

__all__: list[str] = []

with hidden("bitsandbytes"):
    import peft  # noqa: F401
