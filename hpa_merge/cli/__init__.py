"""The command line. Only this package prints.

Heavy libraries are imported when they are needed: --help and wrong options do not import torch.
"""

import errno
import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from hpa_merge.cli.calib import calib_command
from hpa_merge.cli.completion import asked_for, completion_command, completions
from hpa_merge.cli.demo import demo_command
from hpa_merge.cli.ending import INTERRUPTION, STOPPED, ending_soon
from hpa_merge.cli.evaluate import eval_command
from hpa_merge.cli.inspect import inspect_command
from hpa_merge.cli.merging import merge_command, sweep_command
from hpa_merge.cli.push import push_command
from hpa_merge.cli.ranks import HandOver, Voice, is_first, started
from hpa_merge.cli.report import report_command
from hpa_merge.cli.samples import samples_command
from hpa_merge.cli.score import score_command
from hpa_merge.cli.suggesting import command_first, meant_command, meant_option
from hpa_merge.cli.terminal import allow_any_text, allow_many_files, check_environment, complain, open_streams
from hpa_merge.cli.tune import tune_command
from hpa_merge.cli.verify import verify_command
from hpa_merge.errors import HPAError, RankError
from hpa_merge.inputs.secrets import recorded, secrets_of, without_secrets

__all__ = ["main"]

FAILURE, USAGE = 1, 2
"""Exit statuses, besides 0 and that of an interruption."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
"""Errors of a full or broken disk, or of a closed pipe, while printing or writing temporary files."""

COMMANDS = {
    "calib": calib_command,
    "completion": completion_command,
    "demo": demo_command,
    "eval": eval_command,
    "inspect": inspect_command,
    "push": push_command,
    "report": report_command,
    "samples": samples_command,
    "score": score_command,
    "sweep": sweep_command,
    "tune": tune_command,
    "verify": verify_command,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command of the first word, or a merge, and exit with its status."""
    open_streams()
    if (asked := asked_for()) and (answer := completions(asked, merge_command, COMMANDS)) is not None:
        click.echo(answer)
        return
    words = command_first(sys.argv[1:] if arguments is None else arguments, COMMANDS)
    given, typed = tuple(words), shlex.join(["hpa-merge", *recorded(words)])
    secrets = frozenset().union(*map(secrets_of, words))
    command: click.Command = merge_command
    name = "hpa-merge"
    if words and words[0] in COMMANDS:
        command, name = COMMANDS[words[0]], f"hpa-merge {words.pop(0)}"
    elif sentence := meant_command(words, COMMANDS):
        if is_first():
            with suppress(OSError):
                complain(sentence)
        sys.exit(USAGE)
    allow_many_files()
    allow_any_text()
    resumable = any(parameter.name == "resume" for parameter in command.params)
    interruption = INTERRUPTION if resumable else STOPPED
    verbose = "-v" in words or "--verbose" in words
    voice = Voice(interruption)
    with ExitStack() as left:  # a process stays among the others of its run until it has told why it ends
        try:
            check_environment()
            left.enter_context(voice.joined(name, verbose))
            over: HandOver | None = None
            with ending_soon(voice.tell_interruption) as came:
                try:
                    _printed(command, name, words, typed)
                except (OSError, SystemExit):
                    if came.is_set():  # click could not write to a closed terminal
                        raise KeyboardInterrupt from None
                    raise
                except HandOver as handed:
                    over = handed
            if over is not None:
                sys.exit(started(over, given, interruption))
        except click.exceptions.Exit as exit_:
            voice.exit(exit_.exit_code)
        except click.ClickException as error:
            if isinstance(error, click.NoSuchOption):
                error = click.UsageError(meant_option(error, command, words, COMMANDS), error.ctx)
            told = io.StringIO()
            error.show(told)
            voice.exit(voice.tell(without_secrets(told.getvalue(), secrets), USAGE, whole=True))
        except KeyboardInterrupt:
            voice.exit(voice.tell_interruption())
        except RankError as error:
            _trace(verbose, secrets)
            voice.exit(voice.tell_loss(error))
        except HPAError as error:
            _trace(verbose, secrets)
            voice.exit(voice.tell(str(error), USAGE))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE:
                _drop_output()
                if error.errno == errno.EPIPE:  # the reader closed the pipe
                    voice.exit(FAILURE)
                what = "the output" if error.filename is None else f"{os.fsdecode(error.filename):.80}"
                sentence = f"{what} cannot be written ({error.strerror}): free some space, or choose another place."
                voice.exit(voice.tell(sentence, USAGE))
            _trace(verbose, secrets)
            if isinstance(error, OSError) and (place := _given(error, typed)) is not None:
                voice.exit(voice.tell(f"{place} cannot be used ({error.strerror}): check the path.", USAGE))
            sentence = f"{type(error).__name__}: {error} (a bug of hpa-merge or of a library; -v shows the traceback)"
            voice.exit(voice.tell(sentence, FAILURE))


def _printed(command: click.Command, name: str, words: Sequence[str], typed: str) -> None:
    """Run ``command``, and flush the output, so that an error in writing it is reported.

    ``command.main`` would print an empty line if another process interrupts this one.
    """
    try:
        with suppress(click.exceptions.Exit), command.make_context(name, [*words], obj=typed) as context:
            command.invoke(context)
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _trace(verbose: bool, secrets: frozenset[str]) -> None:
    """Print the traceback of the current error if ``verbose``, without ``secrets``."""
    if verbose:
        with suppress(OSError):
            click.echo(without_secrets(traceback.format_exc(), secrets), err=True, nl=False)


def _drop_output() -> None:
    """Drop pending output that cannot be written, so that Python does not try again at exit."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _given(error: OSError, typed: str) -> str | None:
    """The path that the system refuses, if the user typed it; shortened, because it may be too long."""
    if error.errno is None or not isinstance(error.filename, str | bytes):
        return None
    name = os.fsdecode(error.filename)
    typed_words = [word.rpartition("=")[2] for word in shlex.split(typed)[1:]]
    known = any(word and name.startswith((word, str(Path(word).absolute()))) for word in typed_words)
    return f"{name:.80}{'…' if len(name) > 80 else ''}" if known else None
