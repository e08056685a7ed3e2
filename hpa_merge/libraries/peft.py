"""Import peft without bitsandbytes, whose layers no model here has: its import takes a second, and may fetch code."""

from hpa_merge.libraries.hiding import hidden

__all__: list[str] = []

with hidden("bitsandbytes"):
    from peft import import_utils

    import_utils.is_bnb_available()  # peft asks when it first makes a layer, and keeps the answer
    import_utils.is_bnb_4bit_available()
