"""What starts several processes, and the variables that it sets in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

__all__ = ["LAUNCHERS", "Launcher", "started_by"]


@final
@dataclass(frozen=True)
class Launcher:
    """The variables of one launcher.

    Attributes:
        name: for messages.
        rank, size: the number of a process, and how many there are.
        local_rank, local_size: the same among the processes of one machine.
        cores: the cores that each process has of its own, if the launcher says so.
    """

    name: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    cores: str


LAUNCHERS = (
    Launcher("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ""),
    Launcher(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "",
    ),
    Launcher(
        "Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_CPUS_PER_TASK"
    ),
)
"""In the order in which they count: torchrun may run under the others, and srun starts the daemons of mpirun."""


def started_by(launcher: Launcher, environment: Mapping[str, str]) -> bool:
    """Whether the launcher has started this process as one of several.

    A shell in an allocation of Slurm has the variables of a process too, but not those of a step, or those of a
    terminal.
    """
    given = {name for name in (launcher.rank, launcher.size) if environment.get(name)}
    if launcher.name == "torchrun":
        return bool(given)
    if len(given) < 2 or environment[launcher.size] == "1":
        return False
    in_shell = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
    return launcher.name != "Slurm" or not (in_shell or "SLURM_PTY_PORT" in environment)
