"""Which tracker, and where: ``mlflow`` or ``trackio``, with the name of an experiment or a project."""

import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Literal, Protocol, cast, final, get_args

from hpa_merge.errors import ConfigError, extra

if TYPE_CHECKING:
    from hpa_merge.tracking.content import Tracked

__all__ = ["KINDS", "NAME", "Tracker", "open_tracker", "reason_of"]

Kind = Literal["mlflow", "trackio"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NAME = "hpa-merge"
"""The experiment or the project, if none is named."""


class Adapter(Protocol):
    """What the module of a tracker has."""

    def check(self, name: str) -> None:
        """Raise ImportError if the tracker is not installed, anything else if it cannot be written to."""

    def write(self, run: "Tracked", name: str) -> str:
        """Write a run and its children; returns where it is."""


@final
@dataclass(frozen=True)
class Tracker:
    """A tracker that was asked for, and that could be reached.

    Attributes:
        kind: which one.
        name: of the experiment or the project.
    """

    kind: Kind
    name: str

    def write(self, run: "Tracked") -> str:
        """Write a run and its children; returns where it is.

        Raises:
            Exception: whatever the tracker's library raises.
        """
        with redirect_stdout(StringIO()):  # only the command line prints
            return _adapter(self.kind).write(run, self.name)


def open_tracker(given: str) -> Tracker:
    """The tracker of ``mlflow``, ``trackio``, ``mlflow:EXPERIMENT`` or ``trackio:PROJECT``, if it can be written to.

    Address and credentials are the tracker's own: MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID and so on; for MLflow also the
    name, MLFLOW_EXPERIMENT_NAME, if none is given.

    Raises:
        ConfigError: there is no such tracker, it is not installed, or it cannot be reached.
    """
    kind, _, name = given.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"the tracker {given!r} is not known: give {' or '.join(KINDS)}, such as mlflow:EXPERIMENT.")
    usual = os.environ.get("MLFLOW_EXPERIMENT_NAME") if kind == "mlflow" else None
    tracker = Tracker(kind, name or usual or NAME)
    try:
        with redirect_stdout(StringIO()):
            _adapter(tracker.kind).check(tracker.name)
    except ImportError as error:
        raise ConfigError(f"{kind} cannot be imported ({error}): {extra(kind)}.") from error
    except Exception as error:
        raise ConfigError(
            f"{kind} cannot be written to ({reason_of(error)}): check {ADDRESSES[tracker.kind]}, or leave --track out."
        ) from error
    return tracker


ADDRESSES = {"mlflow": "MLFLOW_TRACKING_URI", "trackio": "TRACKIO_SERVER_URL and TRACKIO_SPACE_ID"}
"""The variables that say where a tracker is."""


def reason_of(error: BaseException) -> str:
    """Why a tracker failed, in a line; of an error that the network or the disk began, its beginning."""
    first = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    told = first if isinstance(first, OSError) else error
    return f"{' '.join(str(told).split()) or type(told).__name__:.300}"


def _adapter(kind: Kind) -> Adapter:
    """The module of a tracker, which imports its library in its functions."""
    return cast(Adapter, import_module(f"hpa_merge.tracking.to_{kind}"))
