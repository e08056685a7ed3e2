"""Variables that contradict each other, and which of the processes that find them tells the user.

These processes have not met, and never will. So each has to know by itself whether it is the one that tells.
"""

from collections.abc import Mapping
from typing import final

from hpa_merge.errors import ConfigError
from hpa_merge.launch.launchers import LAUNCHERS, Launcher, started_by

__all__ = ["Contradiction", "check_counts", "check_first", "has_outer", "is_teller"]

ELASTIC = "TORCHELASTIC_RUN_ID"
"""What torchrun alone sets. A script or a job may set RANK too."""

AGENTS = "GROUP_WORLD_SIZE"
"""How many torchruns have met; each is started once on a machine."""


@final
class Contradiction(ConfigError):
    """What launchers say contradicts itself.

    Attributes:
        tells: whether this process tells the user, and not another one that finds the same.
    """

    def __init__(self, sentence: str, tells: bool) -> None:
        super().__init__(sentence)
        self.tells = tells


def is_teller(environment: Mapping[str, str]) -> bool:
    """Whether this is the first of the processes with the same environment, by the numbers that they have.

    A number that a job script may have given to all does not count if a launcher numbers the processes. A process
    without any number tells.
    """
    outer = _outer(environment)
    if ELASTIC in environment and not (outer is not None and environment.get(AGENTS) == "1"):
        outer = None
    numbers = [] if outer is None else [environment[outer.rank]]
    if ELASTIC in environment or not numbers:
        given = [environment.get(name, "") for name in (LAUNCHERS[0].rank, LAUNCHERS[0].local_rank)]
        numbers += [number for number in given if number.isdecimal()][:1]
    return not any(number.isdecimal() and int(number) for number in numbers)


def check_counts(launcher: Launcher, environment: Mapping[str, str]) -> None:
    """Check that torchrun, or a job script, does not count fewer processes than the launcher that has started them.

    Raises:
        Contradiction: it does, as where each task has a torchrun of its own.
    """
    outer = _outer(environment)
    if launcher.name != LAUNCHERS[0].name or outer is None:
        return
    count, size = environment[outer.size], environment.get(launcher.size, "")
    if ELASTIC not in environment:
        if count.isdecimal() and size.isdecimal() and int(size) < int(count):
            raise Contradiction(_disagreement(launcher, outer, environment), is_teller(environment))
    elif environment.get(AGENTS) == "1":
        raise Contradiction(
            f"{outer.name} has started torchrun {count} times, and each of them has begun a run of its own: start one "
            f"on each machine with --nnodes {count} and the same --rdzv-endpoint, or start hpa-merge without torchrun.",
            is_teller(environment),
        )


def check_first(launcher: Launcher, environment: Mapping[str, str]) -> None:
    """Check that a job script and the launcher agree about which process is the first.

    Raises:
        Contradiction: they do not, as where all processes have the same RANK.
    """
    outer = _outer(environment)
    if launcher.name != LAUNCHERS[0].name or outer is None or ELASTIC in environment:
        return
    given = [environment[name] for name in (launcher.size, outer.size, launcher.rank, outer.rank)]
    if not all(map(str.isdecimal, given)):
        return
    size, count, rank, number = map(int, given)
    if size == count and (rank == 0) != (number == 0):
        # if all have the same RANK, the first process that has another number tells, or the first of its machine
        tells = number == int(rank == 0) or environment.get(outer.local_rank) == "0"
        raise Contradiction(_disagreement(launcher, outer, environment), tells)


def _disagreement(launcher: Launcher, outer: Launcher, environment: Mapping[str, str]) -> str:
    rank, size, number, count = (
        environment.get(name, "not set") for name in (launcher.rank, launcher.size, outer.rank, outer.size)
    )
    return (
        f"{launcher.rank} is {rank} and {launcher.size} is {size} in the environment, and {outer.name} says that "
        f"{outer.rank} is {number} of {count}, which contradict each other: unset {launcher.rank} and "
        f"{launcher.size}, so that the {count} processes share one run."
    )


def has_outer(environment: Mapping[str, str]) -> bool:
    """Whether a launcher other than torchrun has started this process as one of several."""
    return _outer(environment) is not None


def _outer(environment: Mapping[str, str]) -> Launcher | None:
    """The launcher other than torchrun that has started this process as one of several; None if there is none."""
    return next((each for each in LAUNCHERS[1:] if started_by(each, environment)), None)
