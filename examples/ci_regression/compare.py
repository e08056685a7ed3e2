"""Compare a merge's report with the golden one: what was decided must be the same, what was measured must be close.

    hpa-merge old new --safety-calib safety.jsonl --task-calib task.jsonl -o out
    python compare.py out/hpa_report.json golden_report.json

Exit status 0 if they agree, 1 with one line for each difference. Not compared: ``run`` (time, memory, versions),
``manifest`` (the digests of the weights, whose last bits may differ on another processor), ``verdict`` (which follows
from the rest, and names paths), ``what_if`` (what other settings would undo), and in which cells of ``saliency`` the
columns lie (one on the border of two may then change over).
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RELATIVE = 1e-3
"""Floating-point figures may differ by this much: another processor adds in another order."""


def differences(found: Any, golden: Any, where: str = "") -> Iterator[str]:
    """One sentence for each place in which two reports differ."""
    if isinstance(found, dict) and isinstance(golden, dict):
        for key in sorted(found.keys() | golden.keys()):
            if key == "what_if" or (where == "" and key in ("run", "manifest", "verdict")):
                continue
            if key not in found or key not in golden:
                yield f"{where}{key} is in {'the golden report' if key in golden else 'this report'} only"
            elif key != "saliency":
                yield from differences(found[key], golden[key], f"{where}{key}.")
    elif isinstance(found, list) and isinstance(golden, list) and len(found) == len(golden):
        for place, (one, other) in enumerate(zip(found, golden, strict=True)):
            name = one.get("name", place) if isinstance(one, dict) else place
            yield from differences(one, other, f"{where}{name}.")
    elif isinstance(found, float) and isinstance(golden, float):
        if not math.isclose(found, golden, rel_tol=RELATIVE, abs_tol=1e-9):
            yield f"{where[:-1]} is {found!r} and was {golden!r}"
    elif found != golden:
        yield f"{where[:-1]} is {found!r} and was {golden!r}"


def main(found: str, golden: str) -> int:
    reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in (found, golden)]
    versions = [report["schema_version"] for report in reports]
    if versions[0] != versions[1]:
        lines = [
            "schema_version is {} and was {}: fields have other names, make the golden report anew".format(*versions)
        ]
    else:
        lines = list(differences(*reports))
    print("\n".join(lines) or "the reports agree")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
