"""The machine that a merge runs on: its device, its memory, the versions of what matters."""

import platform
import resource
import sys
from pathlib import Path

import greenlet
import safetensors
import torch
import transformers

import hpa_merge
from hpa_merge.errors import ConfigError
from hpa_merge.isolation import free_memory


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX`` stands for here.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name} and this machine has {torch.cuda.device_count()} CUDA devices: use cpu.")
    return device


def describe(device: torch.device) -> str:
    """The processor, its instructions as torch uses them, the threads, and the CUDA device: on another one of these
    the sums are taken in another order, and the last digits differ.
    """
    parts = [platform.machine(), _processor(), torch.backends.cpu.get_cpu_capability()]
    parts += [f"{torch.get_num_threads()} threads"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(filter(None, parts))


def peak_host_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    Linux tells it in ``/proc``; what ``getrusage`` tells there includes the process that started this one.
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
    """Memory that is free on a CUDA device, or for the CPU on the host, within the limits of its control groups; None
    where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch says so by a class of its own on CUDA, and by a text on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def versions() -> dict[str, str]:
    """Versions of everything that the result depends on."""
    return {
        "hpa-merge": hpa_merge.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "greenlet": greenlet.__version__,
    }


def _processor() -> str:
    """What the processor is called; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return " ".join(next(line for line in lines if line.startswith("model name")).partition(":")[2].split())
    except (OSError, StopIteration):
        return platform.processor()
