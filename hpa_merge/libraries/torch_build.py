"""What torch was built for, read from its own file of versions, because importing it takes a second and more."""

import re
from importlib.util import find_spec
from pathlib import Path

__all__ = ["is_for_cpus_alone"]


def is_for_cpus_alone() -> bool:
    """Whether torch was built with neither CUDA nor ROCm; False if its file does not say so."""
    package = find_spec("torch")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        try:
            source = Path(place, "version.py").read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        found = dict(re.findall(r"^(cuda|hip)\b[^=]*= (.+)$", source, re.MULTILINE))
        return found == {"cuda": "None", "hip": "None"}
    return False
