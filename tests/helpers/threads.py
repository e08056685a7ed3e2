"""What threads come to."""

import time
from collections.abc import Callable
from typing import Any


def settles(value: Callable[[], Any], expected: Any) -> None:
    """See that it becomes this, and stays."""
    until = time.monotonic() + 120  # so that a test that hangs ends
    while value() != expected and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)
    assert value() == expected
