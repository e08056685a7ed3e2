"""The test files of changed files: ``python .ci/tests_of.py hpa_merge/core/hessian.py …`` prints a path a line.

A module of the package is tested in the folder of its own name below ``tests/``, in the files that begin with
``test_`` and the module's name; a test file that changed is itself one.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tests_of(path: Path) -> set[Path]:
    """The test files of one changed file, relative to the root."""
    if path.parts[0] == "tests" and path.name.startswith("test_"):
        return {path} if (ROOT / path).is_file() else set()
    if path.parts[0] != "hpa_merge" or path.suffix != ".py":
        return set()
    room = ROOT / "tests" / Path(*path.parts[1:-1])
    names = (f"test_{path.stem}.py", f"test_{path.stem}_*.py")
    return {found.relative_to(ROOT) for name in names for found in room.glob(name)}


if __name__ == "__main__":
    print(*sorted({test for path in sys.argv[1:] for test in tests_of(Path(path))}), sep="\n")
