"""The oldest release of every dependency that pyproject.toml admits, as constraints for pip: ``python .ci/oldest.py``.

torch is left out: an old release of it for the CPU is not on PyPI, so that end is tried with the torch of the other.
"""

import re
import tomllib
from pathlib import Path

LOWEST = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?>=(?P<version>[0-9.]+)")


def lowest(project: dict) -> dict[str, str]:
    """The lower bound of each requirement that has one, the extras' too, by its name."""
    extras = project["optional-dependencies"].values()
    found = map(LOWEST.match, [*project["dependencies"], *(each for extra in extras for each in extra)])
    return {match["name"]: match["version"] for match in found if match and match["name"] != "torch"}


if __name__ == "__main__":
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for name, version in lowest(pyproject["project"]).items():
        print(f"{name}=={version}")
