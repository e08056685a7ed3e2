"""Which process of a run this is, from the variables that its launcher sets: torchrun, Slurm or Open MPI."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from hpa_merge.errors import ConfigError
from hpa_merge.launch.contradictions import (
    Contradiction,
    check_counts,
    check_first,
    has_outer,
    is_teller,
)
from hpa_merge.launch.launchers import LAUNCHERS, Launcher, started_by

__all__ = ["COUNT", "Place", "ended", "find_place", "started_here", "timeout_in"]

COUNT = "HPA_MERGE_NPROC"
"""Set for the processes that ``--nproc`` starts, to their number."""

TIMEOUT = "HPA_MERGE_TIMEOUT"
"""Seconds that a process waits for the others in an exchange."""

SECONDS = 6 * 3600
"""Its default. It is for a process that hangs: one that ends is noticed at once, and a slow disk takes no hours."""

PORT = 29500
"""Where the processes meet if no port is given; torch's own default."""

HERE = "127.0.0.1"

LOOPBACK = (HERE, "localhost", "::1")
"""Addresses at which the processes of one machine alone can meet."""


@final
@dataclass(frozen=True)
class Place:
    """A process among those of its run.

    Attributes:
        rank, size: its number, from 0, and how many there are.
        local_rank, local_size: the same on its machine.
        address, port: where the processes meet: on the machine of rank 0.
        launcher: what has started it.
        bound: whether the launcher has given it cores of its own; then it may see its own GPU only.
        placed: whether ``local_rank`` is known.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    launcher: str
    bound: bool
    placed: bool = True

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, count: int) -> int | None:
        """The number of the process's own CUDA device, if it sees ``count`` of them; None if there is none for it.

        Raises:
            ConfigError: it is not known which of several is its own.
        """
        if count > 1 and not self.placed:
            raise ConfigError(
                f"LOCAL_RANK is not set in the environment, and process {self.rank + 1} of {self.size} sees {count} "
                "CUDA devices: set it to the number of the process on its machine, from 0, or show each process one "
                "device with CUDA_VISIBLE_DEVICES."
            )
        if self.local_rank < count:
            return self.local_rank
        return 0 if count == 1 and self.launcher != LAUNCHERS[0].name else None

    def threads(self, cores: int) -> int:
        """Threads of this process, if it may run on so many cores: its own, or those that all on its machine share."""
        return max(1, cores // (1 if self.bound else self.local_size))

    @property
    def url(self) -> str:
        """Where torch.distributed meets the others."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp://{host}:{self.port}?rank={self.rank}&world_size={self.size}"


def find_place(environment: Mapping[str, str]) -> Place | None:
    """The place of this process; None if it is the only one.

    Raises:
        Contradiction: the variables contradict each other, or one is missing.
    """
    if environment.get("SLURM_STEP_NUM_TASKS"):  # SLURM_NTASKS may be that of the whole job
        environment = {**environment, "SLURM_NTASKS": environment["SLURM_STEP_NUM_TASKS"]}
    for launcher in LAUNCHERS:
        if started_by(launcher, environment):
            check_counts(launcher, environment)
            place = _place(launcher, environment)
            check_first(launcher, environment)
            return place
    return None


def started_here(environment: Mapping[str, str]) -> bool:
    """Whether ``--nproc`` has started this process; a user may have set the variable too."""
    return COUNT in environment and environment[COUNT] == environment.get(LAUNCHERS[0].size)


def timeout_in(environment: Mapping[str, str]) -> float:
    """Seconds that a process waits for the others in an exchange.

    Raises:
        ConfigError: the variable does not hold a positive number.
    """
    given = environment.get(TIMEOUT, "")
    if not given:
        return SECONDS
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", given) or not float(given):
        raise ConfigError(f"{TIMEOUT} is {given!r} in the environment: give a number of seconds, or unset it.")
    return float(given)


def ended(rank: int, size: int, how: str = "") -> str:
    """The sentence for a process that has ended without a word; ``how``: what has ended it, if that is known."""
    return (
        f"process {rank + 1} of {size} has ended{how and f' ({how})'}: it was killed, or its machine has failed or run "
        "out of memory, and the same command with --resume continues, with any number of processes."
    )


def _place(launcher: Launcher, environment: Mapping[str, str]) -> Place | None:
    """The place that the launcher's variables give; raises as :func:`find_place`."""
    rank, size = (_number(launcher, name, environment) for name in (launcher.rank, launcher.size))
    if not 0 <= rank < size:
        given = launcher.name == LAUNCHERS[0].name and has_outer(environment)  # by a job script, maybe to all
        first = rank < 0 or rank == size  # of those that are too many
        raise _contradiction(launcher, environment, launcher.rank, launcher.size, None if given else first)
    if size == 1:
        return None
    address = environment.get("MASTER_ADDR", "")
    placed = bool(environment.get(launcher.local_rank)) or address in LOOPBACK
    local_rank = _number(launcher, launcher.local_rank, environment, rank if address in LOOPBACK else 0)
    local_size = _local_size(launcher, environment, local_rank, size if address in LOOPBACK else local_rank + 1)
    if not 0 <= local_rank < local_size:
        tells = local_rank < 0 or local_rank == local_size
        raise _contradiction(launcher, environment, launcher.local_rank, launcher.local_size, tells)
    if not local_size <= size:
        raise _contradiction(launcher, environment, launcher.local_size, launcher.size)
    address = address or _own_address(launcher, environment, local_size == size)
    port, bound = _port(launcher, environment), launcher.cores in environment
    return Place(rank, size, local_rank, local_size, address, port, launcher.name, bound, placed)


def _number(launcher: Launcher, name: str, environment: Mapping[str, str], missing: int | None = None) -> int:
    given = environment.get(name, "" if missing is None else str(missing))
    if not given:
        other = launcher.size if name == launcher.rank else launcher.rank
        raise Contradiction(
            f"{other} is set in the environment and {name} is not: start every process with torchrun or srun, which "
            "set both, or unset it.",
            is_teller(environment),
        )
    if not re.fullmatch(r"-?[0-9]{1,9}", given):
        raise Contradiction(
            f"{name} is {given!r:.40} in the environment and has to be a whole number: let the launcher set it.",
            is_teller(environment),
        )
    return int(given)


def _contradiction(
    launcher: Launcher, environment: Mapping[str, str], first: str, second: str, tells: bool | None = None
) -> Contradiction:
    """``tells``: whether this process tells the user; None if all processes find the same."""
    values = [f"{name} is {environment.get(name, 'not set')}" for name in (first, second)]
    return Contradiction(
        f"{' and '.join(values)} in the environment, which contradict each other: let {launcher.name} set both, or "
        "unset them to run one process.",
        is_teller(environment) if tells is None else tells,
    )


def _local_size(launcher: Launcher, environment: Mapping[str, str], local_rank: int, missing: int) -> int:
    """Processes on this machine; Slurm lists those of every machine. ``missing``: if the launcher does not say."""
    if launcher.name != "Slurm":
        return _number(launcher, launcher.local_size, environment, missing)
    listed: list[int] = []
    for count, _, times in re.findall(r"([0-9]{1,6})(\(x([0-9]{1,6})\))?", environment.get(launcher.local_size, "")):
        listed += [int(count)] * int(times or 1)
    node = _number(launcher, "SLURM_NODEID", environment, 0)
    return listed[node] if 0 <= node < len(listed) else local_rank + 1


def _own_address(launcher: Launcher, environment: Mapping[str, str], alone: bool) -> str:
    """The address if none is given: this machine, if it runs all processes; raises ConfigError if it does not."""
    if alone:
        return HERE
    raise Contradiction(
        f"{launcher.name} has started {environment[launcher.size]} processes and MASTER_ADDR is not set: set it to the "
        "name of the first machine, in every process.",
        is_teller(environment),
    )


def _port(launcher: Launcher, environment: Mapping[str, str]) -> int:
    """The port: as given, or for a job of Slurm one of its own, because two jobs may share a machine."""
    if not environment.get("MASTER_PORT"):
        job = environment.get("SLURM_JOB_ID", "")
        return 15000 + int(job) % 10000 if launcher.name == "Slurm" and job.isdecimal() else PORT
    port = _number(launcher, "MASTER_PORT", environment)
    if not 0 < port < 2**16:
        raise Contradiction(
            f"MASTER_PORT is {port} in the environment and has to be a port: give one from 1 to 65535.",
            is_teller(environment),
        )
    return port
