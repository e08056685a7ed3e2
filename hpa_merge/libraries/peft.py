"""Import peft without bitsandbytes, whose layers no model here has: its import takes a second, and may fetch code."""

from hpa_merge.libraries import torchvision  # noqa: F401 - before transformers, which peft imports
from hpa_merge.libraries.hiding import hidden

__all__: list[str] = []

with hidden("bitsandbytes"):
    from peft import import_utils

    # peft asks when it first makes a layer, and keeps the answer; one that it has already stays
    if not import_utils.is_bnb_available():
        import_utils.is_bnb_4bit_available()
