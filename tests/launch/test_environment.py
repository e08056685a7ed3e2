"""launch/environment.py: what launchers set, and what contradicts itself."""

import pytest

from hpa_merge.errors import ConfigError
from hpa_merge.launch.contradictions import Contradiction
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


def tasks(**given: str) -> list[dict[str, str]]:
    """The environments of ``srun`` with four tasks on each of two machines; ``%`` stands for a task's own number."""
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
    return [
        slurm
        | {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n % 4), "SLURM_NODEID": str(n // 4), "MASTER_ADDR": "node0"}
        | {name: value.replace("%L", str(n % 4)).replace("%", str(n)) for name, value in given.items()}
        for n in range(8)
    ]


def pods(*names: str, **given: str) -> list[dict[str, str]]:
    """The environments of a job that sets torch's variables itself, four processes; without ``names``."""
    base = {"RANK": "%", "WORLD_SIZE": "4", "LOCAL_RANK": "%", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "pod-0"} | given
    found = [{name: value.replace("%", str(n)) for name, value in base.items()} for n in range(4)]
    return [{name: value for name, value in each.items() if name not in names} for each in found]


def of_torchrun(**given: str) -> list[dict[str, str]]:
    """The environments of torchrun with two processes in each of two tasks of Slurm."""
    torch = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "1234"} | given
    return [
        {**each, **torch, "RANK": str(n * 2 + local), "LOCAL_RANK": str(local), "WORLD_SIZE": "4"}
        if torch["GROUP_WORLD_SIZE"] != "1"
        else {**each, **torch, "RANK": str(local), "LOCAL_RANK": str(local), "WORLD_SIZE": "2"}
        for n, each in enumerate(tasks(SLURM_NTASKS="2", SLURM_STEP_TASKS_PER_NODE="1(x2)", SLURM_LOCALID="0")[:2])
        for local in range(2)
    ]


@pytest.mark.parametrize(
    ("environments", "tellers", "sentence"),
    [
        (tasks(MASTER_ADDR=""), [0], "MASTER_ADDR is not set"),
        (tasks(MASTER_PORT="0"), [0], "MASTER_PORT is 0"),
        (tasks(RANK="0"), [0], "RANK is set in the environment and WORLD_SIZE is not"),
        (tasks(RANK="3"), [0], "RANK is set in the environment and WORLD_SIZE is not"),
        (tasks(WORLD_SIZE="8"), [0], "WORLD_SIZE is set in the environment and RANK is not"),
        (tasks(RANK="0", WORLD_SIZE="1"), [0], "unset RANK and WORLD_SIZE, so that the 8 processes share one run"),
        (
            tasks(RANK="%L", WORLD_SIZE="4"),
            [0],
            "RANK is 0 and WORLD_SIZE is 4 in the environment, and Slurm says that",
        ),
        (tasks(RANK="0", WORLD_SIZE="8"), [1, 4], "Slurm says that SLURM_PROCID is 1 of 8"),  # one on each machine
        (tasks(RANK="0", WORLD_SIZE="8", MASTER_ADDR=""), [0], "MASTER_ADDR is not set"),
        (tasks(RANK="8", WORLD_SIZE="8"), [0], "RANK is 8 and WORLD_SIZE is 8"),
        (tasks(RANK="%", WORLD_SIZE="4"), [0], "Slurm says that SLURM_PROCID is 0 of 8"),
        (tasks(RANK="2", WORLD_SIZE="8"), [0], "Slurm says that SLURM_PROCID is 0 of 8"),
        (tasks(RANK="%L", WORLD_SIZE="8"), [4], "RANK is 0 and WORLD_SIZE is 8"),
        (tasks(RANK="$SLURM_PROCID", WORLD_SIZE="8"), [0], "RANK is '$SLURM_PROCID' in the environment"),
        (tasks(SLURM_STEP_NUM_TASKS="6"), [6], "SLURM_PROCID is 6 and SLURM_NTASKS is 6"),
        (tasks(SLURM_LOCALID="%"), [4], "SLURM_LOCALID is 4 and SLURM_STEP_TASKS_PER_NODE is 4(x2)"),
        (pods(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2"), [2], "RANK is 2 and WORLD_SIZE is 2"),
        (pods("RANK"), [0], "WORLD_SIZE is set in the environment and RANK is not"),
        (pods("RANK", "LOCAL_RANK"), [0, 1, 2, 3], "WORLD_SIZE is set"),  # nothing tells them apart
        (pods("MASTER_ADDR", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), [0], "MASTER_ADDR is not set"),
        (pods(LOCAL_WORLD_SIZE="8"), [0], "LOCAL_WORLD_SIZE is 8 and WORLD_SIZE is 4"),
        (
            of_torchrun(GROUP_WORLD_SIZE="1"),
            [0],
            "Slurm has started torchrun 2 times, and each of them has begun a run",
        ),
        (of_torchrun(GROUP_WORLD_SIZE="2", MASTER_PORT="x"), [0], "MASTER_PORT is 'x'"),
    ],
)
def test_a_contradiction_is_told_once(environments: list[dict[str, str]], tellers: list[int], sentence: str) -> None:
    told = {}
    for number, environment in enumerate(environments):
        try:
            find_place(environment)
        except Contradiction as error:
            if error.tells:
                told[number] = str(error)
    assert [*told] == tellers
    assert sentence in told[tellers[0]]


@pytest.mark.parametrize(
    "environments",
    [
        tasks(),
        tasks(RANK="%", WORLD_SIZE="8"),
        tasks(SLURM_NTASKS="16", SLURM_STEP_NUM_TASKS="8"),  # a step of a larger job
        of_torchrun(GROUP_WORLD_SIZE="2"),
        pods(),
        pods("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        # mpirun, whose daemons srun has started on each machine
        [each | MPI | {"OMPI_COMM_WORLD_RANK": str(n % 3), "MASTER_ADDR": "a"} for n, each in enumerate(tasks()[:3])],
    ],
)
def test_processes_that_agree(environments: list[dict[str, str]]) -> None:
    places = [find_place(each) for each in environments]
    assert [place and place.rank for place in places] == [*range(len(environments))]
    assert {place and place.size for place in places} == {len(environments)}


def test_the_number_on_a_machine_is_not_known() -> None:
    """At a loopback address it is the number of the process; elsewhere a process may see one device."""
    for address, expected in (("pod-0", [0, 0]), ("localhost", [0, 1])):
        places = [find_place(each) for each in pods("LOCAL_RANK", "LOCAL_WORLD_SIZE", MASTER_ADDR=address)[:2]]
        assert [place and place.local_rank for place in places] == expected
        assert [place and place.device(1) for place in places] == [0, None if expected[1] else 0]
    place = find_place(pods("LOCAL_RANK", "LOCAL_WORLD_SIZE")[1])
    assert place is not None
    with pytest.raises(ConfigError, match=r"^LOCAL_RANK is not set in the environment, and process 2 of 4 sees 8 CUDA"):
        place.device(8)


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
