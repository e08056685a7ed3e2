"""The machine that a merge runs on: its device, its memory, the versions that matter."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import greenlet
import safetensors
import torch
import torch.distributed as dist

import hpa_merge
from hpa_merge.errors import ConfigError
from hpa_merge.isolation import free_memory
from hpa_merge.launch.environment import find_place


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX`` means on this machine.

    Of several processes that share a run, each has a CUDA device of its own.

    Raises:
        ConfigError: there is no such device, or none for this process.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if (device.index or 0) >= count:
        raise ConfigError(f"device is {name} and this machine has {count} CUDA devices: use cpu.")
    place = find_place(os.environ) if dist.is_available() and dist.is_initialized() else None
    if place is None or (device.index is not None and place.local_size == 1):
        return device
    if device.index is not None:
        raise ConfigError(
            f"device is {name} and {place.local_size} processes share this machine: give cuda, and each takes its own."
        )
    own = place.device(count)
    if own is None:
        raise ConfigError(
            f"{place.local_size} processes share this machine and it has {count} CUDA devices: start as many processes "
            "as there are devices, or use cpu."
        )
    return torch.device("cuda", own)


def describe(device: torch.device) -> str:
    """The processor, the instructions that torch uses, the threads, and the CUDA device: if one of them differs, sums
    are taken in another order, and the last digits differ."""
    parts = [platform.machine(), _processor(), torch.backends.cpu.get_cpu_capability()]
    parts += [f"{torch.get_num_threads()} threads"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(filter(None, parts))


def peak_host_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    On Linux it is read from ``/proc``, because ``getrusage`` includes the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes(device: torch.device) -> int | None:
    """The most that torch has allocated on a CUDA device so far, in bytes; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a CUDA device or, for the CPU, of the host, within the limits of its control groups; None if the
    system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch has its own exception for CUDA, and only a text for the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def versions() -> dict[str, str]:
    """Versions of everything that the result depends on."""
    return {
        "hpa-merge": hpa_merge.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "safetensors": safetensors.__version__,
        "greenlet": greenlet.__version__,
    }


def _processor() -> str:
    """The processor's name; empty if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return " ".join(next(line for line in lines if line.startswith("model name")).partition(":")[2].split())
    except (OSError, StopIteration):
        return platform.processor()
