"""Whether the wheel and the sdist in a folder hold what they have to: ``python .ci/check_dist.py FOLDER``."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "hpa_merge"


def main(folder: Path) -> None:
    """Compare both archives with what git tracks.

    Raises:
        SystemExit: something is missing or does not belong; says what.
    """
    tracked = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines())
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    told = {name for name in inside if ".dist-info/" in name}
    ours = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    problems = [f"{wheel.name} lacks {name}" for name in sorted(ours - inside)]
    problems += [f"{wheel.name} holds {name}" for name in sorted(inside - ours - told)]
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if not any(path.endswith(f".dist-info/{name}") for path in told):
            problems.append(f"{wheel.name} lacks {name}")

    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in files if name.startswith(f"{PACKAGE}.egg-info/")}
    problems += [f"{sdist.name} lacks {name}" for name in sorted(tracked - files)]
    problems += [f"{sdist.name} holds {name}" for name in sorted(files - tracked - made)]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
