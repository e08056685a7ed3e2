"""Where the package lies, and its modules."""

from pathlib import Path

import hpa_merge

ROOT = Path(hpa_merge.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

FLOORS: tuple[set[str], ...] = (
    {"printable"},
    {"counting", "errors", "progress"},
    {"core", "files", "launch", "libraries", "outline", "ranks"},
    {"custom_code", "isolation", "methods", "quantisation"},
    {"config", "records"},
    {"calibration", "checkpoint", "model"},
    {"arguments", "inputs"},
    {"report"},
    {"engine", "render"},
    {"evaluation", "tracking", "verification"},
    {"publishing"},
    {"demo"},
    {"api"},
    {"cli"},
)
"""The parts of the package from the ground up: each imports those on lower floors alone, besides itself."""
