"""A merge on two machines that are not there: two network namespaces, joined by a virtual cable, and one disk.

    python benchmarks/two_machines.py FOLDER OLD NEW SAFETY TASK [--each 1] [--cut]

Needs root, iproute2 and Linux; otherwise it says why it cannot run, and exits with status 0. FOLDER gets the OUTs. Each
machine runs torchrun with so many processes, and OUT is compared with that of one process, byte for byte. With --cut
the cable is cut in the middle of a second run: both machines have to end, which takes the 30 seconds after which
silence counts, and the run is resumed by one process. Exits with status 1 if something is not as it should be.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("hpa-merge-a", "hpa-merge-b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def connect() -> None:
    """Make the namespaces and their cable; raises CalledProcessError or OSError if the system does not let us."""
    for name in NAMES:
        ip("netns", "add", name)
    ip("link", "add", "hpa-a", "netns", NAMES[0], "type", "veth", "peer", "name", "hpa-b", "netns", NAMES[1])
    for name, link, address in zip(NAMES, ("hpa-a", "hpa-b"), ADDRESSES, strict=True):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
        for device in ("lo", link):
            ip("-n", name, "link", "set", device, "up")


def disconnect() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def machines(words: list[str], each: int) -> list[subprocess.Popen[str]]:
    """The command on both machines."""
    started = []
    for number, (name, link) in enumerate(zip(NAMES, ("hpa-a", "hpa-b"), strict=True)):
        command = ["torchrun", "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", str(each)]
        command += ["--master-addr", ADDRESSES[0], "--master-port", "29533", "-m", "hpa_merge", *words]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": link, "OMP_NUM_THREADS": "1"}
        place = ["ip", "netns", "exec", name]
        started.append(subprocess.Popen([*place, *command], env=environment, stderr=subprocess.PIPE, text=True))
    return started


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}


def sentences(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def run(folder: Path, pair: list[str], each: int, cut: bool) -> bool:
    """Whether all was as it should be."""
    words = [*pair[:2], "--safety-calib", pair[2], "--task-calib", pair[3], "--no-page", "-q", "--device", "cpu"]
    alone, out, torn = folder / "alone", folder / "out", folder / "torn"
    for place in folder.iterdir():
        if place.name.split(".")[0] in ("alone", "out", "torn"):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "hpa_merge", *words, "-o", str(alone)], check=True, env=environment)
    began = time.monotonic()
    ends = [(each.communicate()[1], each.returncode) for each in machines([*words, "-o", str(out)], each)]
    same = [code for _, code in ends] == [0, 0] and weights(out) == weights(alone)
    print(
        f"two machines, {each} processes each: {'the same bytes' if same else ends}, {time.monotonic() - began:.1f} s"
    )
    if not cut:
        return same
    both = machines([*words, "-o", str(torn)], each)
    while not Path(f"{torn}.partial.journal.1").exists():
        time.sleep(0.01)
    ip("-n", NAMES[0], "link", "set", "hpa-a", "down")
    began = time.monotonic()
    ends = [(each.communicate()[1], each.returncode) for each in both]
    seconds, told = time.monotonic() - began, [sentences(text) for text, _ in ends]
    print(f"cut: ended after {seconds:.1f} s with {[code for _, code in ends]}; {told}; OUT: {torn.exists()}")
    resume = [sys.executable, "-m", "hpa_merge", *words, "-o", str(torn), "--resume"]
    subprocess.run(resume, check=True, env=environment)
    resumed = weights(torn) == weights(alone)
    print(f"resumed by one process: {'the same bytes' if resumed else 'other bytes'}")
    return same and resumed and all(code for _, code in ends)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pair", nargs=4, metavar="OLD NEW SAFETY TASK")
    parser.add_argument("--each", type=int, default=1, help="processes on each machine")
    parser.add_argument("--cut", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    try:
        connect()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no network namespaces here: {getattr(error, 'stderr', None) or error}")
        disconnect()
        return 0
    try:
        return 0 if run(given.folder.absolute(), given.pair, given.each, given.cut) else 1
    finally:
        disconnect()


if __name__ == "__main__":
    sys.exit(main())
