"""launch/environment.py: what launchers set, and what contradicts itself."""

import pytest

from hpa_merge.errors import ConfigError
from hpa_merge.launch.environment import SECONDS, find_place, started_here, timeout_in

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "41234",
}
SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "MASTER_ADDR": "node0",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN, (5, 8, 1, 4, "node0", 41234, "torchrun")),
        (SLURM, (5, 7, 1, 3, "node0", 15000 + 3456, "Slurm")),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1,6(x2)", "SLURM_NODEID": "2"}, (5, 7, 1, 6, "node0", 18456, "Slurm")),
        (SLURM | {"MASTER_PORT": "2000"}, (5, 7, 1, 3, "node0", 2000, "Slurm")),
        (MPI, (2, 3, 2, 3, "127.0.0.1", 29500, "Open MPI")),
        (MPI | {"MASTER_ADDR": "::1"}, (2, 3, 2, 3, "::1", 29500, "Open MPI")),
        # torchrun under srun; a Kubernetes job, which says nothing of the machine; srun without a job's variables
        (SLURM | TORCHRUN, (5, 8, 1, 4, "node0", 41234, "torchrun")),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "pod-0"}, (1, 2, 0, 1, "pod-0", 29500, "torchrun")),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "MASTER_ADDR": "a"},
            (0, 2, 0, 1, "a", 29500, "Slurm"),
        ),
    ],
)
def test_places(environment: dict[str, str], expected: tuple[object, ...]) -> None:
    place = find_place(environment)
    assert place is not None
    found = (place.rank, place.size, place.local_rank, place.local_size, place.address, place.port, place.launcher)
    assert found == expected
    assert place.url.startswith("tcp://[" if ":" in place.address else f"tcp://{place.address}:")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "", "WORLD_SIZE": ""},
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},  # a batch script
        SLURM | {"SLURM_PTY_PORT": "40000"},  # a terminal on a node
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_a_single_process(environment: dict[str, str]) -> None:
    assert find_place(environment) is None


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (TORCHRUN | {"RANK": "8"}, "RANK is 8 and WORLD_SIZE is 8 in the environment, which contradict each other"),
        (TORCHRUN | {"RANK": "-1"}, "RANK is -1 and WORLD_SIZE is 8"),
        (TORCHRUN | {"RANK": "one"}, "RANK is 'one' in the environment and has to be a whole number"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "LOCAL_RANK is 4 and LOCAL_WORLD_SIZE is 4"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE is 9 and WORLD_SIZE is 8"),
        (TORCHRUN | {"MASTER_PORT": "70000"}, "MASTER_PORT is 70000 in the environment and has to be a port"),
        ({"RANK": "0"}, "RANK is set in the environment and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is set in the environment and RANK is not"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, "MASTER_ADDR is not set"),
        ({**SLURM, "MASTER_ADDR": ""}, "Slurm has started 7 processes and MASTER_ADDR is not set"),
        (SLURM | {"SLURM_PROCID": "7"}, "SLURM_PROCID is 7 and SLURM_NTASKS is 7"),
        (SLURM | {"SLURM_LOCALID": "3"}, "SLURM_LOCALID is 3 and SLURM_STEP_TASKS_PER_NODE is 4,3"),
    ],
)
def test_contradictions(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_place(environment)
    assert sentence in str(raised.value)


def test_devices_and_threads() -> None:
    shared, bound = find_place(TORCHRUN), find_place(SLURM | {"SLURM_CPUS_PER_TASK": "8"})
    assert shared is not None
    assert bound is not None
    assert [shared.device(count) for count in (0, 1, 2, 4)] == [None, None, 1, 1]
    assert [bound.device(count) for count in (0, 1, 2)] == [None, 0, 1]  # Slurm shows a task its own device alone
    assert (shared.threads(16), shared.threads(3), bound.threads(8)) == (4, 1, 8)


def test_what_nproc_has_started() -> None:
    assert started_here(TORCHRUN | {"HPA_MERGE_NPROC": "8"})
    assert not any(map(started_here, (TORCHRUN, {"HPA_MERGE_NPROC": "8"}, TORCHRUN | {"HPA_MERGE_NPROC": "2"})))


def test_the_time_out() -> None:
    assert timeout_in({}) == SECONDS
    assert timeout_in({"HPA_MERGE_TIMEOUT": "90.5"}) == 90.5
    for given in ("soon", "0", "-3", "1e9", "nan"):
        with pytest.raises(ConfigError, match=r"^HPA_MERGE_TIMEOUT is .* in the environment: give a number of seconds"):
            timeout_in({"HPA_MERGE_TIMEOUT": given})
