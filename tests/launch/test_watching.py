"""launch/watching.py: an end of a process is noticed by the others, with its reason."""

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from hpa_merge.errors import RankError
from hpa_merge.launch.environment import Place
from hpa_merge.launch.watching import Peers

COUNT = 4


class Notes:
    """A board for threads."""

    def __init__(self) -> None:
        self._notes: dict[str, queue.Queue[bytes]] = {}

    def _of(self, key: str) -> "queue.Queue[bytes]":
        return self._notes.setdefault(key, queue.Queue())

    def set(self, key: str, value: str) -> None:
        for _ in range(COUNT):
            self._of(key).put(value.encode())

    def get(self, key: str) -> bytes:
        return self._of(key).get(timeout=60)


def place(rank: int) -> Place:
    return Place(rank, COUNT, rank, COUNT, "127.0.0.1", 1, "torchrun", bound=False)


@pytest.fixture
def peers() -> Iterator[list[Peers]]:
    board, made = Notes(), dict[int, Peers]()
    threads = [
        threading.Thread(target=lambda rank=rank: made.update({rank: Peers(place(rank), board, 60.0)}))  # type: ignore[misc]
        for rank in range(COUNT)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    yield [made[rank] for rank in range(COUNT)]
    for each in made.values():
        each.close()


def cut(peers: Peers) -> None:
    """What the kernel does when a process ends, whose thread ends too."""
    peers._over.set()
    for each in peers._sockets.values():
        each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("dying", range(COUNT))
def test_a_process_that_ends(dying: int, peers: list[Peers]) -> None:
    cut(peers[dying])
    others = [each for rank, each in enumerate(peers) if rank != dying]
    assert all(each.wait(60.0) for each in others)
    assert [(each.lost, each.told) for each in others] == [(dying, None)] * (COUNT - 1)


@pytest.mark.parametrize("telling", [0, 3])
def test_a_process_that_has_told_why(telling: int, peers: list[Peers]) -> None:
    called = threading.Event()
    peers[1].on_end = called.set
    peers[telling].tell(2)
    cut(peers[telling])
    others = [each for rank, each in enumerate(peers) if rank != telling]
    assert all(each.wait(60.0) for each in others)
    assert [(each.lost, each.told) for each in others] == [(None, 2)] * (COUNT - 1)
    assert called.wait(60.0)


def test_processes_that_end_as_planned(peers: list[Peers]) -> None:
    for each in peers:
        each.close()
    assert not any(each.wait(0.0) for each in peers)


def test_a_process_that_does_not_come() -> None:
    with pytest.raises(RankError, match=r"^process 1 of 4 does not reach the others .* check that all 4 were started"):
        Peers(place(0), Notes(), 0.05)
