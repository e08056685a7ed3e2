"""The test files of changed files: ``python .ci/tests_of.py hpa_merge/core/hessian.py …`` prints a path a line.

A module of the package is tested in the folder of ``tests/`` that has the name of its room: in the files that begin
with ``test_`` and the module's name, or its sub-package's, and in those that import it. Where there are none there,
those of other folders that import it are taken, and where there are none either, the whole folder. A test file that
changed is itself one; a helper is tested by the files that import it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tests_of(path: Path) -> list[Path]:
    """The test files of one changed file; paths are relative to the root."""
    if path in FILES:
        return [path]
    parts = path.with_suffix("").parts
    if path.suffix != ".py" or parts[0] not in ("hpa_merge", "tests"):
        return []
    if parts[0] == "tests":
        return [file for file in FILES if path.stem in imported(file)]
    parts = parts[:-1] if path.stem == "__init__" else parts
    importing = [file for file in FILES if ".".join(parts) in imported(file)]
    room = [file for file in FILES if file.parts[1] == parts[1]] if len(parts) > 1 else []
    named = [file for file in room if any(f"{file.stem}_".startswith(f"test_{name}_") for name in parts[2:])]
    return sorted({*named, *(file for file in importing if file in room)}) or importing or room


if __name__ == "__main__":
    print(*sorted({test for path in sys.argv[1:] for test in tests_of(Path(path))}), sep="\n")
