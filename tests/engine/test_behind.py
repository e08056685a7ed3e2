"""Jobs behind are done in order, and what one raises comes out."""

import threading
import time

import pytest
import torch

from hpa_merge.engine.behind import Behind

CPU = torch.device("cpu")


@pytest.mark.parametrize("most", [0, 1, 3])
def test_jobs_are_done_in_order(most: int) -> None:
    behind, done, threads = Behind(CPU, most), [], set()
    before = torch.get_num_threads()
    for number in range(5):
        behind.do(lambda n=number: done.append((n, torch.get_num_threads())) or threads.add(threading.get_ident()))
    behind.finish()
    assert done == [(number, before) for number in range(5)]
    assert len(threads) == 1
    assert (threading.get_ident() in threads) == (most == 0)
    behind.close()


def test_no_more_wait_than_there_is_room_for() -> None:
    behind, go, begun = Behind(CPU, 2), threading.Event(), threading.Event()
    behind.do(lambda: begun.set() or go.wait())
    behind.do(lambda: None)
    third = threading.Thread(target=behind.do, args=[lambda: None])
    third.start()
    begun.wait()
    third.join(0.05)
    assert third.is_alive()
    go.set()
    third.join()
    behind.finish()
    behind.close()


@pytest.mark.parametrize("most", [0, 2])
def test_what_a_job_raises_comes_out_and_ends_the_others(most: int) -> None:
    behind, done = Behind(CPU, most), []

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    def jobs() -> None:
        behind.do(lambda: done.append(1))
        behind.do(fail)
        behind.do(lambda: done.append(2))
        behind.finish()

    with pytest.raises(ZeroDivisionError, match="a bug"):
        jobs()
    behind.close()
    assert done == [1]


def test_the_end_drops_what_waits() -> None:
    behind, begun, done = Behind(CPU, 3), threading.Event(), []

    def wait() -> None:
        begun.set()
        while not behind._closed:
            time.sleep(0.001)
        done.append(1)

    behind.do(wait)
    behind.do(lambda: done.append(2))
    begun.wait()
    behind.close()
    assert done == [1]
    Behind(CPU, 1).close()  # never begun
