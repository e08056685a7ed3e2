"""Where the package lies, and its modules."""

from pathlib import Path

import hpa_merge

ROOT = Path(hpa_merge.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
