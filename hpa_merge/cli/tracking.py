"""``--track``: the result of a command, in MLflow or trackio too."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from hpa_merge.cli.ranks import is_first
from hpa_merge.cli.terminal import complain
from hpa_merge.inputs.secrets import without_secrets
from hpa_merge.printable import printable

if TYPE_CHECKING:
    from hpa_merge.tracking.content import Tracked
    from hpa_merge.tracking.tracker import Tracker

__all__ = ["TRACK", "tracked", "tracker_of"]

TRACK = click.option(
    "--track",
    metavar="mlflow|trackio[:NAME]",
    help="Write options, figures, report and page to this tracker when the work is done; NAME: experiment or project. "
    " [default NAME: hpa-merge]",
)


def tracker_of(given: str | None) -> "Tracker | None":
    """The tracker that was asked for; None without one, and on other ranks than 0.

    Raises:
        ConfigError: it is not installed, or cannot be reached.
    """
    if given is None or not is_first():
        return None
    from hpa_merge.tracking.tracker import open_tracker

    return open_tracker(given)


def tracked(tracker: "Tracker | None", run: "Callable[[], Tracked]", quiet: bool) -> None:
    """Write a run; what fails is one line, because the work is done.

    Args:
        run: makes it.
    """
    if tracker is None:
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            place = tracker.write(run())
    except Exception as error:
        from hpa_merge.tracking.tracker import reason_of

        complain(
            f"the result was not written to {tracker.kind} ({reason_of(error)}); it is complete without.", "Warning"
        )
        return
    for sentence in dict.fromkeys(
        " ".join(str(each.message).split()) for each in caught if issubclass(each.category, UserWarning)
    ):
        complain(f"{tracker.kind}: {sentence:.300}", "Warning")
    if not quiet:
        click.echo(printable(without_secrets(f"{tracker.kind} has it as {place}.")))
