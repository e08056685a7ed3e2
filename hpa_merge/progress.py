"""How a long function reports progress, and how that is shown: a bar in a terminal or a notebook, lines elsewhere."""

import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar, final

from hpa_merge.printable import printable

__all__ = ["Bar", "Lines", "Pace", "Progress", "bars_in_notebooks", "disabled", "duration", "in_notebook", "silent"]

P = ParamSpec("P")
R = TypeVar("R")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are; 1 as long as that is not known."""

TICK = 1.0
"""Seconds after which a bar is drawn again without a step, so that its clock runs."""

FIRST_LINE, LAST_PAUSE = 5.0, 60.0
"""Seconds before the first line, and the longest pause between two; a pause is a tenth of the time gone."""

SURE = 2
"""Steps after which the time left is estimated: the first unit is often smaller than the others."""


def silent(what: str, done: int, total: int) -> None:
    """The :data:`Progress` that reports nothing."""


def duration(seconds: float) -> str:
    """``40 s``, ``4 min``, ``2 h 5 min``: as exact as an estimate is."""
    if seconds < 60:
        return f"{max(5 * round(seconds / 5), 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@final
@dataclass
class Pace:
    """What is being done, and an estimate of the time left.

    Attributes:
        clock: gives the time in seconds.
        what, done, total: of the last step.
    """

    clock: Callable[[], float] = time.monotonic
    what: str = "starting"
    done: int = 0
    total: int = 1
    _begun: tuple[float, int] = field(default=(0.0, 0), init=False)
    _at: float = field(default=0.0, init=False)

    def step(self, what: str, done: int, total: int) -> None:
        """Take a step; a new total or fewer steps begin a new estimate."""
        now = self.clock()
        if total != self.total or done < self.done:
            self._begun = now, done
        if done != self.done or total != self.total:
            self._at = now
        self.what, self.done, self.total = printable(what), done, total

    @property
    def known(self) -> bool:
        """Whether the number of steps is known."""
        return self.total > 1

    @property
    def ended(self) -> bool:
        """Whether all steps are done."""
        return self.known and self.done >= self.total

    @property
    def left(self) -> str:
        """``about 4 min left``; empty as long as that is not known, and where the estimate has run out."""
        begun, first = self._begun
        steps = self.done - first
        if not self.known or steps < SURE:
            return ""
        seconds = (self.total - self.done) * (self._at - begun) / steps - (self.clock() - self._at)
        return f"about {duration(seconds)} left" if seconds >= 3 else ""


@final
class Bar:
    """A bar from the first step to the last, which erases it: above all a clock that runs and the name of the step."""

    def __init__(self, title: str, *, pace: Pace | None = None, notebook: bool = False, file: Any = None) -> None:
        """Draw nothing yet.

        Args:
            title: what the whole of it is called: ``merging``.
            notebook: draw it with tqdm's widget, where there is one.
            file: where it is drawn; standard error by default.
        """
        with warnings.catch_warnings():  # without ipywidgets the notebook's bar is one of text
            warnings.simplefilter("ignore")
            from tqdm import tqdm
            from tqdm.auto import tqdm as automatic

        self._pace = pace or Pace()
        self._notebook = notebook
        self._title = title
        self._made: Callable[..., Any] = lambda **options: (automatic if notebook else tqdm)(file=file, **options)
        self._bar: Any = None
        self._begun = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        if not notebook:
            self._ticker.start()

    def __call__(self, what: str, done: int, total: int) -> None:
        """The :data:`Progress`."""
        with self._lock:
            self._pace.step(what, done, total)
            self._draw()

    def close(self) -> None:
        """Erase it."""
        self._over.set()
        with self._lock:
            self._erase()
        if self._ticker.is_alive():
            self._ticker.join()

    def _draw(self) -> None:
        if self._pace.ended:
            self._erase()
            return
        pace, columns = self._pace, shutil.get_terminal_size().columns
        counted = "{percentage:3.0f}% |{bar}| " if pace.known else "{bar} " if self._notebook else ""
        # tqdm draws nothing on a terminal of 0 lines, as some pipelines have
        shape: dict[str, Any] = {} if self._notebook else {"ncols": columns - 1, "nrows": 20}
        shape["bar_format"] = f"{{desc}} {counted}{{elapsed}}{{postfix}}"
        if self._bar is None:
            self._bar = self._made(total=pace.total, desc=self._title, leave=False, disable=False, **shape)
            self._begun = self._bar.start_t = self._begun or self._bar.start_t  # one clock for all parts
        bar = self._bar
        bar.total, bar.n = pace.total, pace.done
        for name, value in shape.items():
            setattr(bar, name, value)
        room = columns // 3 if pace.known else columns - len(self._title) - 12  # a bar, or nothing but the clock
        parts = filter(None, [pace.left, shortened(pace.what, max(room, 12))])
        bar.set_postfix_str(", ".join(parts), refresh=True)

    def _erase(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self._lock, suppress(OSError, ValueError):  # the terminal may be closed
                if self._bar is not None and not self._over.is_set():
                    self._draw()


@final
class Lines:
    """A line now and then, for a log: without control characters, and not one for each step."""

    def __init__(
        self, title: str, say: Callable[[str], None], *, pace: Pace | None = None, ticking: bool = True
    ) -> None:
        """Say nothing yet: the clock starts with the first step.

        Args:
            title: what the whole of it is called: ``merging``.
            say: prints a line.
            ticking: say something during long steps too.
        """
        self._pace = pace or Pace()
        self._title, self._say = title, say
        self._begun: float | None = None
        self._next = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        if ticking:
            self._ticker.start()

    def __call__(self, what: str, done: int, total: int) -> None:
        """The :data:`Progress`."""
        with self._lock:
            self._pace.step(what, done, total)
            if self._begun is None:
                self._begun = self._pace.clock()
                self._next = self._begun + FIRST_LINE
            self._tell(self._begun)

    def close(self) -> None:
        """Say nothing more."""
        self._over.set()
        if self._ticker.is_alive():
            self._ticker.join()

    def _tell(self, begun: float) -> None:
        now, pace = self._pace.clock(), self._pace
        if now < self._next or pace.ended or self._over.is_set():
            return
        gone = now - begun
        self._next = now + min(max(FIRST_LINE, gone / 10), LAST_PAUSE)
        counted = f" {pace.done} of {pace.total}" if pace.known else ""
        left = f", {pace.left}" if pace.left else ""
        self._say(f"{int(gone) // 60:02}:{int(gone) % 60:02} {self._title}{counted}: {pace.what}{left}")

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self._lock, suppress(OSError, ValueError):
                if self._begun is not None:
                    self._tell(self._begun)


def shortened(name: str, most: int) -> str:
    """The end of a long name, which tells one unit from another."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return "IPKernelApp" in getattr(ask(), "config", {})


def disabled() -> bool:
    """Whether the user wants no bars: tqdm's own variable."""
    return os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")


def bars_in_notebooks(**titles: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the progress of a function in a notebook, unless the caller takes it or ``TQDM_DISABLE`` is set.

    Args:
        titles: what each argument that is a :data:`Progress` is the progress of.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> R:
            if titles.keys() & options.keys() or disabled() or not in_notebook():
                return function(*arguments, **options)
            bars = {name: Bar(title, notebook=True) for name, title in titles.items()}
            try:
                return function(*arguments, **(options | bars))  # type: ignore[arg-type]
            finally:
                for bar in bars.values():
                    bar.close()

        return run

    return decorate
