"""A command as one of several processes: only rank 0 prints, and the reason of an end is told once."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, final

import click

from hpa_merge.cli.ending import INTERRUPTED
from hpa_merge.cli.terminal import ENCODER, complain
from hpa_merge.errors import ConfigError, RankError
from hpa_merge.launch.contradictions import Contradiction
from hpa_merge.launch.environment import ended, find_place, started_here

if TYPE_CHECKING:
    from hpa_merge.launch.meeting import Member

__all__ = ["NPROC", "HandOver", "Voice", "hand_over", "is_first", "started"]

SHARED = ("hpa-merge", "hpa-merge sweep", "hpa-merge tune")
"""The commands that several processes run together; rank 0 runs the others alone."""

FAILURE, USAGE = 1, 2
"""The exit statuses if another process has ended, and if what the user gave is wrong."""

NPROC = click.option(
    "--nproc",
    type=click.IntRange(min=1),
    metavar="N",
    help="Share the work among N processes on this machine, one for each GPU.",
)


def is_first() -> bool:
    """Whether this process is the only one of its run, or rank 0, which writes what is not OUT's weights.

    Of processes whose environment contradicts itself, the one that tells is taken for it.
    """
    try:
        place = find_place(os.environ)
    except Contradiction as error:
        return error.tells
    return place is None or place.first


class HandOver(Exception):
    """The command is to run as several processes.

    Attributes:
        count: how many.
        device: the option of that name.
    """

    def __init__(self, count: int, device: str) -> None:
        super().__init__(count, device)
        self.count, self.device = count, device


def hand_over(nproc: int | None, device: str) -> None:
    """Called by a command that is about to begin its work; ``nproc``: the option of that name.

    Raises:
        HandOver: several processes shall do the work, and this is not one of them.
        ConfigError: a launcher has started this process already.
    """
    if nproc is None or started_here(os.environ):
        return
    if (place := find_place(os.environ)) is not None:
        raise ConfigError(
            f"--nproc {nproc} starts processes on this machine, and this is already one of the {place.size} that "
            f"{place.launcher} has started: leave --nproc out, or start hpa-merge without it."
        )
    if nproc > 1:
        raise HandOver(nproc, device)


@final
class Voice:
    """Tells the user why a run ends, unless another of its processes does."""

    def __init__(self, interruption: str) -> None:
        """``interruption``: the sentence for a signal."""
        self._interruption = interruption
        self._tells = True  # of what is not for others to tell, as long as these have not been met
        self._member: Member | None = None
        self._real: TextIO | None = None

    @contextmanager
    def joined(self, name: str, verbose: bool) -> Iterator[None]:
        """Join the other processes, if there are any. Within the block, output of other ranks than 0 is dropped.

        Args:
            name: of the command.
            verbose: show standard error of all.

        Raises:
            Exit: rank 0 runs this command alone.
            RankError: not all processes have come.
            Contradiction: what launchers say contradicts itself.
            ConfigError: a variable of the environment is wrong.
        """
        try:
            place = find_place(os.environ)
        except Contradiction as error:
            self._tells = error.tells
            raise
        if place is None:
            yield
            return
        if name not in SHARED:
            if not place.first:
                raise click.exceptions.Exit(0)
            yield
            return
        self._tells = place.first
        with ExitStack() as stack:
            if not place.first:
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(redirect_stdout(nowhere))
                if not verbose:
                    self._real = sys.stderr
                    stack.enter_context(redirect_stderr(nowhere))
            if not verbose:  # torch would show where in its code a connection has ended, which a sentence tells
                os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            from hpa_merge.isolation import kept

            # before torch is imported, so that the host is forked and not started afresh
            stack.enter_context(kept(ENCODER, beginning=True, silent=not verbose))
            from hpa_merge.launch.meeting import meeting

            self._member = stack.enter_context(meeting(place))
            self._member.on_end(lambda: os._exit(self._end("", FAILURE)))  # nothing has begun that is to be ended
            try:
                self._member.begin()
            except RankError as error:
                self.exit(self.tell_loss(error))
            except ConfigError as error:
                self.exit(self.tell(str(error), USAGE))  # while the others can be reached
            for number in (signal.SIGINT, signal.SIGTERM):  # of a launcher, while this process tells why it ends
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            self._member.on_end(_interrupt)
            yield

    def exit(self, status: int) -> NoReturn:
        """End this process; if others are at work, without waiting for what they will not send any more."""
        if self._member is not None and status:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)
        sys.exit(status)

    def tell(self, text: str, status: int, *, whole: bool = False) -> int:
        """Tell why this process ends, unless another one tells; returns the exit status.

        Args:
            text: a sentence; ``whole``: lines that are shown as they are.
        """
        if self._member is None and status == USAGE and not self._tells:
            return status
        if self._member is None or self._member.may_tell(status):
            self._say(text, whole=whole)
        return status if self._member is None or self._member.told is None else self._member.told

    def tell_interruption(self) -> int:
        """Tell that a signal has come, which may be because another process has ended; returns the exit status."""
        if self._member is None:
            if self._tells:
                tell_interruption(self._interruption)
            return INTERRUPTED
        return self._end(self._interruption, INTERRUPTED)

    def tell_loss(self, error: RankError) -> int:
        """Tell that an exchange has failed, which may be because another process has ended; returns the exit status."""
        return self._end(str(error), FAILURE)

    def _end(self, sentence: str, status: int) -> int:
        member = self._member
        if member is None:
            return self.tell(sentence, status)
        lost = member.lost()
        if member.told is not None:
            return member.told
        if lost is not None:
            sentence, status = lost, FAILURE
        if started_here(os.environ) and (lost is not None or status == INTERRUPTED):
            return status  # the process of --nproc tells
        return self.tell(sentence, status)

    def _say(self, text: str, *, whole: bool = False) -> None:
        """Complain if possible: the terminal may be closed, or the disk full."""
        with suppress(OSError), redirect_stderr(self._real or sys.stderr):
            click.echo(text, err=True, nl=False) if whole else complain(text)


def tell_interruption(sentence: str) -> None:
    """Tell that a signal has come, below the "^C" of a terminal. Never raises."""
    with suppress(OSError):
        if sys.stderr.isatty():
            click.echo(err=True)
        complain(sentence)


def _interrupt() -> None:
    """Interrupt the work of this process, if it is at work."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        os.kill(os.getpid(), signal.SIGTERM)


def started(asked: HandOver, words: Sequence[str], interruption: str) -> int:
    """Run the command with ``words`` as several processes; returns the exit status.

    Raises:
        ConfigError: this machine cannot run so many.
    """
    import torch

    from hpa_merge.launch.starting import check_count, start

    check_count(asked.count, asked.device, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    end = start(asked.count, words)
    if end.interrupted or end.status == INTERRUPTED:
        tell_interruption(interruption)
        return INTERRUPTED
    if end.killed is not None:
        complain(ended(end.killed, asked.count, end.by))
        return FAILURE
    return end.status or 0
