"""The memory that is free: the machine's, or what a control group leaves of it; and how children share it."""

from pathlib import Path

import pytest

from hpa_merge.isolation import Child, Limits, free_memory

GIB = 2**30


def tell(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


@pytest.fixture(name="system")
def a_machine(tmp_path: Path) -> tuple[Path, Path]:
    """One with 8 GiB free, as /proc and /sys/fs/cgroup tell it."""
    tell(tmp_path / "proc", meminfo=f"MemTotal: 99 kB\nMemAvailable:  {8 * 2**20} kB")
    tell(tmp_path / "proc" / "self", cgroup="0::/")
    return tmp_path / "proc", tmp_path / "groups"


def limit(folder: Path, most: str, used: int, dropped: int = 0) -> None:
    tell(folder, memory__max=most, memory__current=str(used), memory__stat=f"anon 5\ninactive_file {dropped}")


def test_without_a_limit(system: tuple[Path, Path]) -> None:
    assert free_memory(*system) == 8 * GIB
    limit(system[1], "max", GIB)
    assert free_memory(*system) == 8 * GIB


def test_a_container_of_version_2(system: tuple[Path, Path]) -> None:
    limit(system[1], str(4 * GIB), 3 * GIB, dropped=GIB // 2)
    assert free_memory(*system) == GIB + GIB // 2
    limit(system[1], str(4 * GIB), 5 * GIB)
    assert free_memory(*system) == 0
    limit(system[1], str(40 * GIB), GIB)
    assert free_memory(*system) == 8 * GIB


def test_the_tightest_of_several_groups(system: tuple[Path, Path]) -> None:
    proc, groups = system
    tell(proc / "self", cgroup="0::/user.slice/job:1")
    limit(groups / "user.slice", str(2 * GIB), GIB)
    limit(groups / "user.slice" / "job:1", "max", GIB)
    assert free_memory(proc, groups) == GIB


def test_version_1(system: tuple[Path, Path]) -> None:
    proc, groups = system
    tell(proc / "self", cgroup="5:cpu,cpuacct:/x\n4:memory:/docker/f00\n0::/")
    told = {"memory__limit_in_bytes": str(3 * GIB), "memory__usage_in_bytes": str(GIB)}
    tell(groups / "memory", **told, memory__stat="inactive_file 1\ntotal_inactive_file 7")
    assert free_memory(proc, groups) == 2 * GIB + 7  # a container sees its own group as the outermost


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path) is None


def test_children_that_start_together_share() -> None:
    said = []
    for together in (1, 8):
        child = Child("isolation_services:Probe", 2**60, together)
        try:
            said.append(child.call("room", limits=Limits(10.0, 60.0))[0])
        finally:
            child.close()
    free = free_memory()
    assert free is not None
    assert 0 < said[1] < said[0] / 2
    assert said[0] < 2 * free  # whatever others took or gave back meanwhile
