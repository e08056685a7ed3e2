"""Threads, interruptions and a small checkpoint, for the tests of checkpoint/."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from recorder import NAMES
from safetensors.torch import save_file

from hpa_merge.checkpoint import Checkpoint


@pytest.fixture
def _no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[], None]]:
    """``interrupt_soon()``: a real SIGINT comes to this process after a moment."""

    def interrupt() -> None:
        timer.start()

    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield interrupt
    timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(name="layout", scope="module")
def shared_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    folder = tmp_path_factory.mktemp("layout")
    (folder / "config.json").write_text("{}")
    save_file({name: torch.randn(3, number) for number, name in enumerate(NAMES)}, folder / "model.safetensors")
    with Checkpoint.open(folder, "NEW") as checkpoint:
        yield checkpoint
